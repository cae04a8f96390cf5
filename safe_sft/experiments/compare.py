"""Means over seeds, and which variants differ by more than chance, prompt by prompt."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple

from ..evaluation.statistics import PairedOutcomes
from .grid import Experiment
from .measured import OF_TASK
from .results import ALIGNED, SEED, Result
from .stages import STAGE

#: Kind of rate -> whether less is better.
LOWER_IS_BETTER = {"asr": True, "over_refusal": True, "right": False, "loss": True}
_LEVEL = 0.05


class Mean(NamedTuple):
    """A mean over seeds.

    Attributes:
        value: the mean.
        deviation: the sample standard deviation; None for one seed.
        n: number of seeds.
    """

    value: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean | None":
        """Return the mean of values; None where there are none."""
        if not values:
            return None
        mean, n = sum(values) / len(values), len(values)
        spread = sqrt(sum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
        return cls(mean, spread, n)


@dataclass(frozen=True)
class Entry:
    """A variant at one point of the grid, over all seeds.

    Attributes:
        means: mean of each rate, by kind; None where there is no number.
        best: kinds of rate by which the variant is among the best, by more than chance.
        missing: number of seeds whose run is not there.
        results: the results of the seeds.
        earlier: for a stage, the means on the task of each earlier one, by its label and by kind.
    """

    means: Mapping[str, Mean | None]
    best: frozenset[str] = frozenset()
    missing: int = 0
    results: tuple[Result, ...] = ()
    earlier: Mapping[str, Mapping[str, Mean | None]] = field(default_factory=dict)


Point = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Column:
    """All variants at one point of the grid.

    Attributes:
        point: axis and label, for every axis but the seed.
        entries: an entry for each variant that is not excluded there, and for the aligned model first.
    """

    point: Point
    entries: Mapping[str, Entry]

    @property
    def title(self) -> str:
        """The point in words."""
        return ", ".join(f"{axis} {value}" for axis, value in self.point)

    @property
    def utility(self) -> str:
        """Which rate says what the task has gained: `right`, or `loss` where there are no right answers."""
        return "right" if any(entry.means.get("right") for entry in self.entries.values()) else "loss"

    @property
    def earlier(self) -> dict[str, str]:
        """The labels of the stages before, each with the kind of rate that says what is left of its task."""
        found: dict[str, str] = {}
        for entry in self.entries.values():
            for label, means in entry.earlier.items():
                found[label] = "right" if means.get("right") else found.get(label, "loss")
        return found


def columns(experiment: Experiment, results: Sequence[Result]) -> list[Column]:
    """Gather the results by point of the grid, over seeds.

    Args:
        experiment: the experiment.
        results: one result for each cell.
    """
    grouped: dict[Point, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        point = tuple((axis, label) for axis, label in result.cell.point.items() if axis != SEED)
        grouped[point][result.cell.variant].append(result)
    stages = list(experiment.axes.get(STAGE, ()))
    places = {label: stages[: stages.index(label)] for label in stages}
    return [
        Column(point, _entries(of, experiment.baseline, places.get(dict(point).get(STAGE, ""), [])))
        for point, of in grouped.items()
    ]


def _entries(of: Mapping[str, Sequence[Result]], baseline: str, stages: Sequence[str]) -> dict[str, Entry]:
    best = {kind: _best(of, baseline, kind) for kind in LOWER_IS_BETTER}
    entries = {ALIGNED: Entry(_means([r for group in of.values() for r in group], "before"))}
    for variant, group in of.items():
        marked = frozenset(kind for kind, names in best.items() if variant in names)
        missing = sum(result.measured is None for result in group)
        entries[variant] = Entry(_means(group, "after"), marked, missing, tuple(group), _earlier(group, stages))
    return entries


def _earlier(group: Sequence[Result], stages: Sequence[str]) -> dict[str, dict[str, Mean | None]]:
    """Return the means on the tasks of earlier stages."""
    return {
        label: {
            kind: Mean.of([rate["value"] for result in group if (rate := result.earlier(number, kind))])
            for kind in OF_TASK
        }
        for number, label in enumerate(stages, 1)
    }


def _means(group: Sequence[Result], model: str) -> dict[str, Mean | None]:
    means: dict[str, Mean | None] = {}
    for kind in LOWER_IS_BETTER:
        rates: dict[str | None, float] = {}  # the aligned model is the same in all variants: once for each seed
        for place, result in enumerate(group):
            if rate := result.rate(kind, model):
                key = result.cell.point.get(SEED) if model == "before" else str(place)
                rates.setdefault(key, rate["value"])
        means[kind] = Mean.of(list(rates.values()))
    return means


def _best(of: Mapping[str, Sequence[Result]], baseline: str, kind: str) -> set[str]:
    """Return the variants that beat the baseline, and are beaten by none, by more than chance.

    The tests against the baseline are corrected for their number (Holm 1979, https://www.jstor.org/stable/4615733).
    """
    others = [variant for variant in of if variant != baseline]
    if baseline not in of or not others:
        return set()
    pairs = {variant: compare(of[baseline], of[variant], kind) for variant in others}
    winners, left = set(), len(pairs)
    for variant in sorted(pairs, key=lambda name: pairs[name].p_value):
        if pairs[variant].p_value * left >= _LEVEL:
            break
        left -= 1
        if pairs[variant].difference > 0:
            winners.add(variant)
    return {
        one
        for one in winners
        if not any(_beats(compare(of[one], of[other], kind)) for other in winners if other != one)
    }


def _beats(pairs: PairedOutcomes) -> bool:
    return pairs.difference > 0 and pairs.p_value < _LEVEL


def compare(first: Sequence[Result], second: Sequence[Result], kind: str) -> PairedOutcomes:
    """Compare two variants prompt by prompt: on each, which of the two does better over the seeds that both have.

    The unit is the prompt, since the seeds' answers to one prompt depend on each other; the test is then that of
    `PairedOutcomes`, over the prompts on which the two differ.

    Args:
        first: the results of one variant, of all seeds.
        second: those of the other, at the same point.
        kind: `asr`, `over_refusal` or `right`; `loss` has no outcomes, and gives no pairs.

    Returns:
        `second_only` counts the prompts on which the second does better, `first_only` those on which the first does.
    """
    seeds = {result.cell.point.get(SEED): result for result in first}
    balance: dict[str, int] = defaultdict(int)
    for result in second:
        other = seeds.get(result.cell.point.get(SEED))
        if other is None:
            continue
        mine, theirs = result.outcomes.get(kind, {}), other.outcomes.get(kind, {})
        for prompt in mine.keys() & theirs.keys():
            balance[prompt] += int(mine[prompt]) - int(theirs[prompt])
    sign = -1 if LOWER_IS_BETTER[kind] else 1
    better = sum(sign * value > 0 for value in balance.values())
    worse = sum(sign * value < 0 for value in balance.values())
    return PairedOutcomes(0, worse, better, len(balance) - worse - better)
