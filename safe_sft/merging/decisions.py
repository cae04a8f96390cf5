"""What a merge decided for each weight, by the cosine of its update: for the record of the merge and its card."""

from typing import Any, final


@final
class Decisions:
    """Which updates leave what alignment changed, by the names of their weights.

    Attributes:
        cosines: cosine of each update; None where it is undefined, because the update or the change is zero.
        changed: for each update, whether the merge changes it.
    """

    def __init__(self) -> None:
        self.cosines: dict[str, float | None] = {}
        self.changed: dict[str, bool] = {}

    def decide(self, name: str, cosine: float | None, threshold: float, *, inclusive: bool) -> bool:
        """Decide whether an update is changed, and remember it; one without a cosine is not.

        Args:
            name: name of the weight.
            cosine: cosine of its update.
            threshold: below it, the update is changed.
            inclusive: whether an update at the threshold is changed, too.
        """
        leaves = cosine is not None and (cosine < threshold or (inclusive and cosine == threshold))
        self.cosines[name], self.changed[name] = cosine, leaves
        return leaves

    def report(self) -> dict[str, Any]:
        """Return the decisions as plain values for JSON: counts, and cosine and verdict of each weight."""
        weights = {name: {"cosine": c, "changed": self.changed[name]} for name, c in self.cosines.items()}
        return {"updates": len(weights), "changed": sum(self.changed.values()), "weights": weights}
