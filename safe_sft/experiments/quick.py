"""A quick look at an experiment: one point of its grid, every variant and stage, a few steps each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .cells import Cell

#: Optimizer steps of a run, and most rows of a task; what a recipe sets lower stays.
STEPS, ROWS = 20, 100
_POISON = "poison_ratio"


def quick_cells(cells: Sequence[Cell], axes: Mapping[str, Sequence[str]]) -> list[Cell]:
    """Return the cells at one point of the grid, shortened: the first value of each axis, of poison the first above 0.

    Args:
        cells: all cells, also those at other points.
        axes: the labels of each axis, but for the stages.
    """
    point = {axis: _label(axis, found) for axis, found in axes.items()}
    chosen = [cell for cell in cells if all(cell.point[axis] == value for axis, value in point.items())]
    return [_short(cell) for cell in chosen]


def _label(axis: str, found: Sequence[str]) -> str:
    poisoned = [value for value in found if axis == _POISON and value.strip("0.")]
    return (poisoned or list(found))[0]


def _short(cell: Cell) -> Cell:
    """Shorten a cell, and what it starts from."""
    parents = {
        name: _short(parent)
        for name, parent in (("trained", cell.trained), ("start", cell.start))
        if parent is not None
    }
    return replace(cell, recipe=_shortened(cell.recipe), **parents)  # type: ignore[arg-type]


def _shortened(recipe: Mapping[str, Any]) -> dict[str, Any]:
    steps, rows = recipe.get("max_steps"), recipe.get("task_size")
    own = steps if isinstance(steps, int) and steps > 0 else STEPS
    size = {"task_size": min(rows, ROWS)} if isinstance(rows, int) else {}
    return {**recipe, "max_steps": min(own, STEPS), **size}
