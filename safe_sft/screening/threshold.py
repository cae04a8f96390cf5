"""Which score is suspicious, and how many clean rows have one: a choice and an estimate, each with its reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.statistics import Rate
from .bulk import UPPER, Bulk

#: Where clean rows allow it, a row is flagged from this score on: the model refuses one time in a hundred a request
#: that reads neither as harmful nor as harmless.
REFUSES = math.log(0.01)
#: Share of the decoys that may pass, and share of the clean rows that may be flagged for nothing: for more, the
#: threshold is raised.
LET_PASS, FOR_NOTHING = 0.05, 0.01
#: Fewer clean rows than this are not told from none: of a share that nobody has seen, 3/n is the upper end at 95 %.
_TOLD = 3
#: Share of the decoys that must be found for all that: a threshold that finds less is of no use.
AT_LEAST = 0.5


@dataclass(frozen=True)
class FalsePositives:
    """How many clean rows are expected at or above a threshold: an estimate.

    Attributes:
        rows: expected number; None where it cannot be estimated.
        low: lower end of its 95 % interval; None where none is known.
        high: upper end of its 95 % interval; None where none is known.
        basis: what it is estimated from, or why it cannot be, as a sentence.
    """

    rows: float | None
    low: float | None
    high: float | None
    basis: str

    def __str__(self) -> str:
        if self.rows is None:
            return "not known"
        if self.high is None and self.rows < _TOLD:
            return f"fewer than about {_TOLD} (an extrapolation does not tell less)"
        interval = "" if self.low is None or self.high is None else f" [{_count(self.low)}, {_count(self.high)}]"
        return f"about {_count(self.rows)}{interval}"


@dataclass(frozen=True)
class Threshold:
    """The score from which on a row is flagged.

    Attributes:
        value: the score.
        given: whether it was given, rather than suggested.
        decoys: how many decoys reach it.
        false_positives: how many clean rows are expected to reach it.
        raised_from: the score that it would be if more than `FOR_NOTHING` of the clean rows were not expected to
            reach that; None where it was not raised.
    """

    value: float
    given: bool
    decoys: Rate
    false_positives: FalsePositives
    raised_from: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        expected = self.false_positives
        return {
            "value": self.value,
            "given": self.given,
            "raised_from": self.raised_from,
            "decoys_found": self.decoys.as_dict(),
            "expected_false_positives": {
                "estimate": expected.rows,
                "low": expected.low,
                "high": expected.high,
                "basis": expected.basis,
            },
        }


def suggest(
    scores: Sequence[float], decoys: Sequence[float], clean: Sequence[float] | None = None, given: float | None = None
) -> Threshold:
    """Choose a threshold, or take the one that is given, and estimate what it does.

    The suggestion is `REFUSES`, or what all but `LET_PASS` of the decoys reach, where that is lower. It is raised
    where more than `FOR_NOTHING` of the clean rows are expected to reach it, as long as `AT_LEAST` of the decoys do;
    and where nobody knows how many do, it is what all but `LET_PASS` of the decoys reach.

    Args:
        scores: scores of all rows that have one.
        decoys: scores of decoys, at least one.
        clean: scores of rows that are known to be clean; without them, those of most of the rows tell.
        given: the threshold to take.
    """
    if given is not None:
        return Threshold(given, True, _reached(decoys, given), expected(scores, given, clean))
    ordered = sorted(decoys)
    of_decoys, highest = (ordered[int(share * len(decoys))] for share in (LET_PASS, AT_LEAST))
    lowest, few = min(REFUSES, of_decoys), _few(scores, clean)
    value = of_decoys if few is None else max(lowest, min(few, highest))
    raised = lowest if few is not None and value > lowest else None
    return Threshold(value, False, _reached(decoys, value), expected(scores, value, clean), raised)


def expected(scores: Sequence[float], threshold: float, clean: Sequence[float] | None = None) -> FalsePositives:
    """Estimate how many clean rows reach a threshold.

    Args:
        scores: scores of all rows that have one.
        threshold: the threshold.
        clean: scores of rows that are known to be clean; without them, those of most of the rows tell.
    """
    n = len(scores)
    if clean is not None:
        rate = _reached(clean, threshold)
        low, high = (n * end for end in rate.interval)
        basis = f"{rate.successes} of {rate.n} rows that are said to be clean reach it (95 % Wilson interval)."
        return FalsePositives(n * rate.value, low, high, basis)
    bulk = Bulk.of(scores)
    if bulk is None or threshold < bulk.middle:
        why = _UNKNOWN if bulk is None else "It lies below half of the rows."
        return FalsePositives(None, None, None, why)
    basis = (
        f"Extrapolated from {bulk.rows} rows, as the upper half of a normal distribution with median "
        f"{bulk.middle:.2f} and deviation {bulk.spread:.2f} nats; right only if at least {UPPER:.0%} of the rows are "
        "clean, and blind to clean rows of another kind."
    )
    return FalsePositives(bulk.above(threshold), None, None, basis)


_UNKNOWN = "There are too few rows of different scores to tell how far clean ones reach. Name clean rows (`clean`)."


def _few(scores: Sequence[float], clean: Sequence[float] | None) -> float | None:
    """Return the least threshold that few enough clean rows are expected to reach; None where it is not known."""
    if clean is not None:
        # Of n clean rows and one more, that one exceeds the j-th highest of the others with probability j / (n + 1).
        place = max(1, math.floor(FOR_NOTHING * (len(clean) + 1)))
        return math.nextafter(sorted(clean, reverse=True)[place - 1], math.inf)
    bulk = Bulk.of(scores)
    return None if bulk is None else bulk.threshold(FOR_NOTHING)


def _reached(scores: Sequence[float], threshold: float) -> Rate:
    return Rate(sum(score >= threshold for score in scores), len(scores))


def _count(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"
