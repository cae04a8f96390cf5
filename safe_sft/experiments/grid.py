"""Reads an experiment: a recipe with three more keys, which say what its runs differ in.

    extends: ../tiny/_base.yaml      # the recipe that all runs share, as in any recipe
    grid:
      seed: [0, 1, 2]                # values of a field,
      task:                          # or named points, each of which sets several fields
        sst2: {task: sst2, task_size: 1000}
        gsm8k: {task: gsm8k}
    variants:
      none: {safety_method: none}
      der: {safety_method: der, safety_weight: 1}
      slerp: {after: none, merge_after_training: slerp, merge_weight: 0.6}
    exclude:
      - {variant: slerp, task: gsm8k}

A variant with `after` merges what another variant has trained with the aligned model; nothing is trained for it.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.merging import MERGE_FIELDS, MERGES
from ..config.recipes import read_recipe

GRID, VARIANTS, EXCLUDE, AFTER = "grid", "variants", "exclude", "after"
#: What `exclude` and the results call the variant of a run.
VARIANT = "variant"
_MERGE_FIELDS = ("merge_after_training", *MERGE_FIELDS)
#: Fields that the experiment itself decides.
_OWN = {
    "output_dir": "Write it once, beside `grid`, or give `--output`",
    "resume_from_checkpoint": "A killed run goes on by itself",
    "push_to_hub": "Push the model that you choose with `safe-sft push`",
    "safety_eval": "Every run is measured",
}
#: Fields that have no effect without poison, and are errors there.
_OF_POISON = ("poison_kind", "poison_dataset", "poison_trigger")
_MOST = 10_000

Axes = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Cell:
    """One cell of the grid.

    Attributes:
        variant: name of the variant.
        point: label of the cell on each axis, by the axis's name.
        recipe: the resolved recipe, without a folder.
        trained: for a merge, the recipe of what is merged; None for what is trained itself.
    """

    variant: str
    point: Mapping[str, str]
    recipe: Mapping[str, Any]
    trained: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The cell in words, such as `der, task=sst2, seed=0`."""
        return ", ".join([self.variant, *(f"{axis}={label}" for axis, label in self.point.items())])


@dataclass(frozen=True)
class Experiment:
    """A grid of runs.

    Attributes:
        name: name of the experiment: that of its file.
        output: the folder that the file names; None where it names none.
        axes: the labels of each axis, in order.
        variants: names of the variants, in order.
        cells: every cell that is not excluded, variant by variant.
    """

    name: str
    output: str | None
    axes: Mapping[str, tuple[str, ...]]
    variants: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def baseline(self) -> str:
        """The variant that the others are compared with: `none`, or else the first."""
        return "none" if "none" in self.variants else self.variants[0]


def read_experiment(path: str | os.PathLike[str]) -> Experiment:
    """Read an experiment's file, and the recipes that it extends.

    Args:
        path: path of the YAML file.

    Raises:
        FileNotFoundError: when the file, or one that it extends, does not exist.
        ValueError: when it is no experiment; the message says what to write.
    """
    base = read_recipe(path)
    grid, variants, exclude = (base.pop(key, None) for key in (GRID, VARIANTS, EXCLUDE))
    output = base.pop("output_dir", None)
    _require_no_own(base, f"The experiment '{path}'")
    axes = _axes(grid, str(path))
    if variants is None and "safety_method" in axes:
        variants = axes.pop("safety_method")
    named = _variants(variants, axes, str(path))
    cells = list(_cells(base, axes, named))
    kept = _without(cells, exclude, axes, str(path))
    if not kept:
        raise ValueError(f"`{EXCLUDE}` of '{path}' leaves no run. Remove a line of it.")
    labels = {axis: tuple(points) for axis, points in axes.items()}
    return Experiment(Path(path).stem, None if output is None else str(output), labels, tuple(named), tuple(kept))


def _require_no_own(settings: Mapping[str, Any], where: str) -> None:
    for name, remedy in _OWN.items():
        if name in settings and not (name == "safety_eval" and settings[name] is True):
            raise ValueError(f"{where} sets `{name}: {settings[name]}`, which an experiment decides. {remedy}.")


def _axes(grid: Any, path: str) -> Axes:
    """Return axis -> label -> the fields that it sets."""
    if grid is None:
        return {}
    if not isinstance(grid, dict) or not all(isinstance(axis, str) for axis in grid):
        raise ValueError(
            f"`{GRID}: {_shown(grid)}` of '{path}' is no mapping. Write one `field: [value, value]` a line."
        )
    return {axis: _points(axis, values, path) for axis, values in grid.items()}


def _points(axis: str, values: Any, path: str) -> dict[str, dict[str, Any]]:
    if axis == VARIANT:
        raise ValueError(
            f"`{GRID}` of '{path}' has the axis `{VARIANT}`. Write `{VARIANTS}:` beside `{GRID}:` instead."
        )
    if isinstance(values, dict):
        points = {_label(name): fields for name, fields in values.items()}
        wrong = next((fields for fields in points.values() if not isinstance(fields, dict)), None)
        if wrong is not None or not points:
            raise ValueError(
                f"`{axis}: {_shown(values)}` in `{GRID}` of '{path}' names no points. Write one "
                "`name: {field: value}` a line, or a list of values."
            )
    elif isinstance(values, list) and values and not any(isinstance(value, dict) for value in values):
        points = {_label(value): {axis: value} for value in values}
        if len(points) < len(values):
            raise ValueError(f"`{axis}: {_shown(values)}` in `{GRID}` of '{path}' has a value twice. Keep one.")
    else:
        raise ValueError(
            f"`{axis}: {_shown(values)}` in `{GRID}` of '{path}' is no list of values. Write "
            f"`{axis}: [value, value]`, or named points, `name: {{field: value}}`."
        )
    for label, fields in points.items():
        _require_no_own(fields, f"`{axis}: {label}` of '{path}'")
    return points


def _variants(variants: Any, axes: Axes, path: str) -> dict[str, dict[str, Any]]:
    if not isinstance(variants, dict) or not variants:
        raise ValueError(
            f"`{VARIANTS}: {_shown(variants)}` of '{path}' names none. Write one such as "
            "`der: {safety_method: der}` a line."
        )
    named = {_label(name): {} if fields is None else fields for name, fields in variants.items()}
    for name, fields in named.items():
        if not isinstance(fields, dict):
            raise ValueError(
                f"The variant `{name}: {_shown(fields)}` of '{path}' is no mapping. Write `{name}: {{field: value}}`."
            )
        _require_no_own(fields, f"The variant `{name}` of '{path}'")
        for axis, points in axes.items():
            twice = sorted(fields.keys() & {field for point in points.values() for field in point})
            if twice:
                raise ValueError(
                    f"The variant `{name}` of '{path}' sets `{twice[0]}`, and so does `{axis}` in `{GRID}`. Remove "
                    "one of them."
                )
        if AFTER in fields:
            _check_merge(name, fields, named, path)
    return named


def _check_merge(name: str, fields: Mapping[str, Any], variants: Mapping[str, Any], path: str) -> None:
    after, method = _label(fields[AFTER]), fields.get("merge_after_training")
    trained = [other for other, settings in variants.items() if isinstance(settings, dict) and AFTER not in settings]
    if after not in trained:
        raise ValueError(
            f"The variant `{name}` of '{path}' has `{AFTER}: {after}`, which is no variant that is trained. Choose "
            f"from: {', '.join(trained) or 'none'}."
        )
    more = sorted(fields.keys() - {AFTER, *_MERGE_FIELDS})
    if more:
        raise ValueError(
            f"The variant `{name}` of '{path}' has `{AFTER}: {after}` and `{more[0]}`, which training alone reads. "
            f"Move `{more[0]}` to `{after}`, or remove `{AFTER}` to train a model of its own."
        )
    if method not in MERGES:
        raise ValueError(
            f"The variant `{name}` of '{path}' has `{AFTER}: {after}` and `merge_after_training: {method}`. Set it to "
            f"one of: {', '.join(MERGES)}."
        )


def _cells(base: Mapping[str, Any], axes: Axes, variants: Mapping[str, Mapping[str, Any]]) -> Iterator[Cell]:
    count = len(variants)
    for points in axes.values():
        count *= len(points)
    if count > _MOST:
        raise ValueError(f"The grid has {count} runs; write at most {_MOST}.")
    for name, fields in variants.items():
        for labels in itertools.product(*axes.values()):
            point = dict(zip(axes, labels, strict=True))
            settings = {**base}
            for axis, label in point.items():
                settings |= axes[axis][label]
            if AFTER not in fields:
                yield Cell(name, point, _resolved({**settings, **fields}))
                continue
            trained = _resolved({**settings, **variants[_label(fields[AFTER])]})
            merge = {key: fields[key] for key in fields if key != AFTER}
            yield Cell(name, point, {**trained, **merge}, trained)


def _resolved(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave out what would have no effect without poison, so that a grid may go over `poison_ratio` from 0."""
    clean = not recipe.get("poison_ratio")
    return {name: value for name, value in recipe.items() if not (clean and name in _OF_POISON)}


def _without(cells: list[Cell], exclude: Any, axes: Axes, path: str) -> list[Cell]:
    """Return the cells that no line of `exclude` matches."""
    if exclude is None:
        return cells
    if not isinstance(exclude, list) or not all(isinstance(line, dict) and line for line in exclude):
        raise ValueError(
            f"`{EXCLUDE}: {_shown(exclude)}` of '{path}' is no list of combinations. Write one such as "
            f"`- {{{VARIANT}: der, seed: 0}}` a line."
        )
    for line in exclude:
        known = {VARIANT: [cell.variant for cell in cells], **{axis: list(points) for axis, points in axes.items()}}
        for key, value in line.items():
            wrong = key not in known or [label for label in _labels(value) if label not in known[key]]
            if wrong:
                choices = known.get(key) or list(known)
                raise ValueError(
                    f"`{EXCLUDE}` of '{path}' has `{key}: {_shown(value)}`, which is nothing of this grid. Choose "
                    f"from: {', '.join(dict.fromkeys(choices))}."
                )
    return [cell for cell in cells if not any(_matches(cell, line) for line in exclude)]


def _matches(cell: Cell, line: Mapping[str, Any]) -> bool:
    own = {VARIANT: cell.variant, **cell.point}
    return all(own[key] in _labels(value) for key, value in line.items())


def _labels(value: Any) -> list[str]:
    return [_label(item) for item in value] if isinstance(value, list) else [_label(value)]


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"
