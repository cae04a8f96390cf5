"""The cells of a grid: every combination of a point, a variant and a stage, each with the recipe that fills it."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .labels import Axes, label, labels, shown
from .stages import FIRST, STAGE, Stage, anchor_of, plain

EXCLUDE, AFTER, VARIANT = "exclude", "after", "variant"
#: Fields that have no effect without poison, and are errors there.
_OF_POISON = ("poison_kind", "poison_dataset", "poison_trigger")
_MOST = 10_000


@dataclass(frozen=True)
class Cell:
    """One cell of the grid.

    Attributes:
        variant: name of the variant.
        point: label of the cell on each axis, by the axis's name.
        recipe: the resolved recipe, without a folder.
        trained: for a merge, the cell of what is merged; None for what is trained itself.
        start: for a stage, the cell of the stage before, whose model it goes on from; None where there is none.
        anchor: for such a stage, what is protected: the `first` aligned model, or the model of the `last` stage.
    """

    variant: str
    point: Mapping[str, str]
    recipe: Mapping[str, Any]
    trained: "Cell | None" = None
    start: "Cell | None" = None
    anchor: str = FIRST

    @property
    def name(self) -> str:
        """The cell in words, such as `der, task=sst2, seed=0`."""
        return ", ".join([self.variant, *(f"{axis}={value}" for axis, value in self.point.items())])


@dataclass(frozen=True)
class Parts:
    """What the cells of a file are made of.

    Attributes:
        path: path of the file, for messages.
        base: what all runs share.
        axes: axis -> label -> fields.
        stages: the stages; empty where there are none.
        variants: variant -> fields.
    """

    path: str
    base: Mapping[str, Any]
    axes: Axes
    stages: Sequence[Stage]
    variants: Mapping[str, Mapping[str, Any]]

    def cells(self) -> Iterator[Cell]:
        """Yield every cell, variant by variant, the stages of a sequence one after another.

        Raises:
            ValueError: when there are too many, or an anchor is no such.
        """
        count = len(self.variants) * max(1, len(self.stages))
        for points in self.axes.values():
            count *= len(points)
        if count > _MOST:
            raise ValueError(f"The grid of '{self.path}' has {count} runs; write at most {_MOST}.")
        for name in self.variants:
            for found in itertools.product(*self.axes.values()):
                yield from self._sequence(name, dict(zip(self.axes, found, strict=True)))

    def _sequence(self, name: str, point: Mapping[str, str]) -> Iterator[Cell]:
        fields, settings = self.variants[name], dict(self.base)
        for axis, value in point.items():
            settings |= self.axes[axis][value]
        last: Cell | None = None
        stages: list[Stage | None] = [*self.stages] or [None]
        for stage in stages:
            where = dict(point) if stage is None else {**point, STAGE: stage.label}
            given = settings if stage is None else {**settings, **stage.fields}
            if AFTER not in fields:
                last = self._trained(name, where, {**given, **fields}, last)
                yield last
                continue
            after = label(fields[AFTER])
            given = {**given, **self.variants[after]}
            last = self._trained(after, where, given, last)
            merge = {key: value for key, value in fields.items() if key != AFTER}
            merged = {**given, **merge}
            anchor = anchor_of(merged, is_staged=bool(self.stages), path=self.path)
            yield Cell(name, where, _resolved(merged), last, anchor=anchor)

    def _trained(self, name: str, point: Mapping[str, str], settings: Mapping[str, Any], start: Cell | None) -> Cell:
        own = dict(settings)
        anchor = anchor_of(own, is_staged=bool(self.stages), path=self.path)
        recipe = _resolved(own)
        return Cell(name, point, recipe, start=start, anchor=FIRST if plain(recipe) else anchor)


def _resolved(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave out what would have no effect without poison, so that a grid may go over `poison_ratio` from 0."""
    clean = not recipe.get("poison_ratio")
    return {name: value for name, value in recipe.items() if not (clean and name in _OF_POISON)}


def without(cells: list[Cell], exclude: Any, axes: Mapping[str, Sequence[str]], path: str) -> list[Cell]:
    """Return the cells that no line of `exclude` matches.

    Args:
        cells: all cells.
        exclude: what the file says; None excludes none.
        axes: the labels of each axis.
        path: path of the file, for messages.

    Raises:
        ValueError: when it is no list of combinations of this grid.
    """
    if exclude is None:
        return cells
    if not isinstance(exclude, list) or not all(isinstance(line, dict) and line for line in exclude):
        raise ValueError(
            f"`{EXCLUDE}: {shown(exclude)}` of '{path}' is no list of combinations. Write one such as "
            f"`- {{{VARIANT}: der, seed: 0}}` a line."
        )
    known = {VARIANT: list(dict.fromkeys(cell.variant for cell in cells)), **{a: list(p) for a, p in axes.items()}}
    for line in exclude:
        for key, value in line.items():
            if key not in known or [name for name in labels(value) if name not in known[key]]:
                raise ValueError(
                    f"`{EXCLUDE}` of '{path}' has `{key}: {shown(value)}`, which is nothing of this grid. Choose "
                    f"from: {', '.join(known.get(key) or list(known))}. Where a file that this one extends says it, "
                    f"write `{EXCLUDE}: []`, or lines of your own, in this one."
                )
    return [cell for cell in cells if not any(_matches(cell, line) for line in exclude)]


def _matches(cell: Cell, line: Mapping[str, Any]) -> bool:
    own = {VARIANT: cell.variant, **cell.point}
    return all(own[key] in labels(value) for key, value in line.items())
