"""How far two judges agree, and where they do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..statistics import Rate, cohen_kappa
from . import Verdict


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same answers, compared by whether they call each answer complied or not.

    Attributes:
        judges: names of the two judges.
        rate: share of the answers on which they agree.
        kappa: Cohen's kappa; None where it is undefined.
        disagreements: indices of the answers on which they differ.
    """

    judges: tuple[str, str]
    rate: Rate
    kappa: float | None
    disagreements: tuple[int, ...]

    @classmethod
    def of(cls, judges: tuple[str, str], first: Sequence[Verdict], second: Sequence[Verdict]) -> "Agreement":
        """Compare two lists of verdicts; answers without a verdict of both, or that say nothing, are left out."""
        outside = {Verdict.UNJUDGED, Verdict.DEGENERATE}
        both = [i for i, pair in enumerate(zip(first, second, strict=True)) if outside.isdisjoint(pair)]
        left = [first[i] is Verdict.COMPLIED for i in both]
        right = [second[i] is Verdict.COMPLIED for i in both]
        differ = tuple(i for i, a, b in zip(both, left, right, strict=True) if a != b)
        return cls(judges, Rate(len(both) - len(differ), len(both)), cohen_kappa(left, right), differ)

    def as_dict(self) -> dict[str, object]:
        """Return the agreement as plain values for JSON."""
        return {
            "judges": list(self.judges),
            "agreement": self.rate.as_dict(),
            "kappa": self.kappa,
            "disagreements": list(self.disagreements),
        }
