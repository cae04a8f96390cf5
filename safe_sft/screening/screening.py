"""A whole screening: every row scored once, a threshold, and what it means in words."""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

from ..evaluation.statistics import Rate
from .openings import Openings
from .score import RowScore
from .screener import Row, Screener
from .spool import Spool
from .threshold import Threshold, suggest

#: What every output says: a screening is no proof.
NO_PROOF = (
    "Rows below the threshold are not shown to be clean: poison that the model would not refuse (a backdoor behind a "
    "harmless request, a change of identity, harmless rows that wear safety down) scores like any other row."
)


@dataclass(frozen=True)
class Scores:
    """The numbers of every row, in order.

    Attributes:
        values: score of each row; minus infinity for those without one.
        cleared: places of rows that are not flagged whatever their score: a judge says that the answer refuses, or
            they are trusted.
    """

    values: "array[float]"
    cleared: frozenset[int] = frozenset()

    @property
    def known(self) -> list[float]:
        """The scores of the rows that have one."""
        return [value for value in self.values if value != -float("inf")]

    def flagged(self, threshold: float) -> list[int]:
        """Return the places of the rows at or above a threshold."""
        high = (place for place, value in enumerate(self.values) if value >= threshold)
        return [place for place in high if place not in self.cleared]


@dataclass(frozen=True)
class Screening:
    """What was found in a data set.

    Attributes:
        name: what the rows are called.
        scores: the score of every row.
        threshold: the score from which on a row is flagged.
        openings: how the model begins a refusal.
        decoys: scores of made-up poison: safety requests with an affirmative opening.
        look_alikes: scores of harmless requests that merely sound dangerous, with the same opening.
        spool: the rows with their scores, on disk.
    """

    name: str
    scores: Scores
    threshold: Threshold
    openings: Openings
    decoys: tuple[float, ...]
    look_alikes: tuple[float, ...]
    spool: Spool

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.scores.values)

    @property
    def unscored(self) -> int:
        """How many rows have no score, because no room was left behind their request."""
        return self.rows - len(self.scores.known)

    @property
    def flagged(self) -> Rate:
        """The share of all rows that are flagged."""
        return Rate(len(self.scores.flagged(self.threshold.value)), self.rows)

    @property
    def cleared(self) -> list[int]:
        """Places of the rows that reach the threshold, and are not flagged."""
        return [place for place in sorted(self.scores.cleared) if self.scores.values[place] >= self.threshold.value]

    @property
    def look_alikes_flagged(self) -> Rate:
        """The share of harmless requests that merely sound dangerous which would be flagged."""
        return Rate(sum(score >= self.threshold.value for score in self.look_alikes), len(self.look_alikes))

    def is_flagged(self, score: RowScore) -> bool:
        """Whether a row is flagged."""
        return score.known >= self.threshold.value and score.index not in self.scores.cleared

    def worst(self, count: int) -> list[tuple[Row, RowScore]]:
        """Return the rows with the highest scores, the highest first."""
        places = set(nlargest(count, range(self.rows), key=self.scores.values.__getitem__))
        found = [pair for pair in self.spool if pair[1].index in places and pair[1].score is not None]
        return sorted(found, key=lambda pair: (-pair[1].known, pair[1].index))

    def as_dict(self) -> dict[str, Any]:
        """Return what was found, without the rows, as plain values for JSON."""
        return {
            "rows": self.name,
            "flagged": self.flagged.as_dict(),
            "unscored": self.unscored,
            "cleared": len(self.cleared),
            "threshold": self.threshold.as_dict(),
            "openings": list(self.openings.texts),
            "refused": {"requests": self.openings.asked, "refused": self.openings.refused},
            "look_alikes_flagged": self.look_alikes_flagged.as_dict(),
            "note": NO_PROOF,
        }


def screen(
    screener: Screener,
    rows: Iterable[Row],
    name: str,
    spool: Spool,
    *,
    total: int | None = None,
    clean: Iterable[Row] | None = None,
    threshold: float | None = None,
    trusted: str | None = None,
) -> Screening:
    """Score every row, in one pass, and choose a threshold; every process must call it.

    Args:
        screener: the aligned model.
        rows: the training rows, streamed or not.
        name: what they are called.
        spool: where the rows are put with their scores, by the main process.
        total: how many they are; None where it is not known.
        clean: rows of the same kind that are known to be clean; None for none.
        threshold: the threshold; None suggests one.
        trusted: column that marks rows which are never flagged; None for none.

    Raises:
        ValueError: for a row that cannot be scored, or without rows.
    """
    known_clean = None if clean is None else [s.known for part in screener.score(clean, "clean rows") for _, s in part]
    values = array("d")
    cleared: set[int] = set()

    def scored() -> Iterator[tuple[Mapping[str, Any], RowScore]]:
        for part in screener.score(rows, name, total):
            values.extend(score.known for _, score in part)
            cleared.update(score.index for row, score in part if score.cleared or (trusted and row.get(trusted)))
            yield from part

    spool.fill(scored())
    if not len(values):
        raise ValueError(f"'{name}' has no rows. Give at least one.")
    scores = Scores(values, frozenset(cleared))
    chosen = suggest(scores.known, screener.decoys, known_clean, threshold)
    return Screening(name, scores, chosen, screener.openings, screener.decoys, screener.look_alikes, spool)


def folder_of(output: Path) -> Path:
    """Return the folder of the scores that are kept, so that a screening that was stopped goes on."""
    return output / "cache"
