"""How far the scores of clean rows reach: the upper half of a normal distribution, fitted to most of the rows.

An empirical null (Efron 2004, https://doi.org/10.1198/016214504000000089): two quantiles of the rows, without those at
the top, which poison is among. On real rows it is right within a factor of a few (`docs/screening.md`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

#: The quantile that, beside the median, tells the spread: of the rows above it, poison may be a part.
UPPER = 0.75
#: Rows that are farther out than this share of clean ones are left out of the fit.
_LEFT_OUT = 0.005
#: Fewer rows than this say nothing of how far clean ones reach.
_LEAST = 60
_NORMAL = NormalDist()
_ROUNDS = 50


@dataclass(frozen=True)
class Bulk:
    """The scores of clean rows above their median.

    Attributes:
        middle: median.
        spread: standard deviation, in nats, above 0.
        rows: how many rows were kept in the fit.
    """

    middle: float
    spread: float
    rows: int

    @classmethod
    def of(cls, scores: Sequence[float]) -> "Bulk | None":
        """Fit it to the scores of all rows.

        Args:
            scores: scores of all rows.

        Returns:
            None where too few rows are there, or most have one score.
        """
        kept = sorted(scores)
        for _ in range(_ROUNDS):
            if len(kept) < _LEAST:
                return None
            middle, upper = (kept[int(share * (len(kept) - 1))] for share in (0.5, UPPER))
            found = cls(middle, (upper - middle) / _NORMAL.inv_cdf(UPPER), len(kept))
            if not found.spread:
                return None
            farthest = found.threshold(_LEFT_OUT)
            inside = [score for score in kept if score < farthest]
            if len(kept) - len(inside) <= _LEFT_OUT * len(kept):
                return found
            kept = inside
        return found

    def above(self, threshold: float) -> float:
        """Return how many clean rows are expected at or above a threshold, which is at least the median."""
        return self.rows * (1 - _NORMAL.cdf((threshold - self.middle) / self.spread))

    def threshold(self, share: float) -> float:
        """Return the score that so large a share of clean rows is expected to reach."""
        return self.middle + self.spread * _NORMAL.inv_cdf(1 - share)
