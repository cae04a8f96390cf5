"""A repaired model that may become the result: its folder, its numbers, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation import Check, Evaluation
from .exam import kept

#: Two candidates' right answers differ where the exact test of McNemar gives less.
CHANCE = 0.05


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

    def costs_less(self, other: "Candidate") -> bool:
        """Return whether it has kept more of its utility than another.

        Right answers decide where they differ by more than chance; else the task's loss, then right answers again,
        then refusals of harmless requests.

        Args:
            other: another candidate, measured by the same exam.
        """
        assert self.measured is not None
        assert other.measured is not None
        for mine, theirs in zip(self.measured.utility, other.measured.utility, strict=True):
            pairs = mine.against(theirs)
            if pairs.p_value < CHANCE:
                return pairs.difference > 0
        return _spent(self.measured) < _spent(other.measured)


def _spent(measured: Evaluation) -> tuple[float, float, float]:
    refused = sum(one.over_refusal.value for one in measured.safety if one.over_refusal is not None)
    loss, right = sum(rows.value for rows in measured.task_losses), sum(task.rate.value for task in measured.utility)
    return loss, -right, refused


def failures(checks: Sequence[Check]) -> str:
    """Return the bounds that were not kept, in words."""
    return " ".join(f"{check.bound} ({check.subject}): {check.message}" for check in checks if not check.passed)
