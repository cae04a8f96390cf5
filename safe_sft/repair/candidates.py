"""A repaired model that may become the result: its folder, its numbers, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation import Check, Evaluation
from .exam import kept


@dataclass(frozen=True)
class Candidate:
    """What one way of repairing came to.

    Attributes:
        way: `train` or `merge`.
        refused: why it is no repair, in a sentence; None where all bounds are kept.
        folder: folder of the last model or adapter that the way made; None where it made none.
        measured: what was measured of it, as it is in that folder; None where it made none.
        checks: its bounds of safety and of utility.
        made: how it was made, as plain JSON values.
    """

    way: str
    refused: str | None = None
    folder: Path | None = None
    measured: Evaluation | None = None
    checks: tuple[Check, ...] = ()
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """Its rates, in one line."""
        if self.measured is None:
            return "nothing was made"
        rates = [f"{one.suite.name} {one.headline}" for one in self.measured.safety if one.headline is not None]
        rates += [f"{one.task} {one.rate}" for one in self.measured.utility]
        rates += [f"task loss {one}" for one in self.measured.task_losses]
        return f"{', '.join(rates)}: {'all bounds kept' if kept(self.checks) else 'not all bounds kept'}"

    def cost(self, before: Evaluation) -> tuple[float, float, float]:
        """Return what it costs, to be compared in order: right answers, task loss, refusals of harmless requests.

        Args:
            before: what was measured of the model before its repair.
        """
        assert self.measured is not None, "only what was measured is compared"
        right = [sum(task.rate.value for task in one.utility) for one in (before, self.measured)]
        loss = [sum(rows.value for rows in one.task_losses) for one in (before, self.measured)]
        refused = [one.over_refusal.value for one in self.measured.safety if one.over_refusal is not None]
        return right[0] - right[1], loss[1] - loss[0], sum(refused)


def failures(checks: Sequence[Check]) -> str:
    """Return the bounds that were not kept, in words."""
    return " ".join(f"{check.bound} ({check.subject}): {check.message}" for check in checks if not check.passed)
