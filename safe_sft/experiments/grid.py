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

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.merging import MERGE_FIELDS, MERGES
from ..config.recipes import EXTENDS, read_recipe
from .cells import AFTER, EXCLUDE, VARIANT, Cell, Parts, without
from .labels import Axes, label, plain_numbers, shown
from .quick import quick_cells
from .stages import ANCHOR, STAGE, STAGES, read_stages

GRID, VARIANTS = "grid", "variants"
_MERGE_FIELDS = ("merge_after_training", *MERGE_FIELDS)
#: Fields that the experiment itself decides.
_OWN = {
    "output_dir": "Write it once, beside `grid`, or give `--output`",
    "resume_from_checkpoint": "A killed run goes on by itself",
    "start_from": "Write `stages`, of which each goes on from the one before",
    "earlier_tasks": "Write `stages`, each of which measures the tasks before it",
    "importance_previous": "Write `stages` and `anchor: last`",
    "push_to_hub": "Push the model that you choose with `safe-sft push`",
    "safety_eval": "Every run is measured",
}
#: Keys that a file has once; a point, a stage or a variant of it sets fields of a recipe alone.
_OF_FILE = (EXTENDS, "env", GRID, VARIANTS, EXCLUDE, STAGES)


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


def read_experiment(path: str | os.PathLike[str], *, quick: bool = False) -> Experiment:
    """Read an experiment's file, and the recipes that it extends.

    Args:
        path: path of the YAML file.
        quick: whether to take one point of the grid alone, a few steps each.

    Raises:
        FileNotFoundError: when the file, or one that it extends, does not exist.
        ValueError: when it is no experiment; the message says what to write.
    """
    base, name = read_recipe(path), str(path)
    grid, variants, exclude, stages = (base.pop(key, None) for key in (GRID, VARIANTS, EXCLUDE, STAGES))
    output = base.pop("output_dir", None)
    _require_no_own(base, f"The experiment '{path}'")
    sequence, axes = read_stages(stages, _axes(grid, name), name)
    for stage in sequence:
        _require_fields(stage.label.partition(" ")[2], stage.fields, f"The stage `{stage.label}` of '{path}'")
    if variants is None and "safety_method" in axes:
        variants = axes.pop("safety_method")
    in_order = {stage.label: dict(stage.fields) for stage in sequence}
    named = _variants(variants, {**axes, **({STAGES: in_order} if in_order else {})}, name)
    labels = {axis: tuple(points) for axis, points in axes.items()}
    shown_axes = {**labels, **({STAGE: tuple(in_order)} if in_order else {})}
    kept = without(list(Parts(name, base, axes, sequence, named).cells()), exclude, shown_axes, name)
    if quick:
        kept = quick_cells(kept, labels)
        shown_axes |= {axis: (kept[0].point[axis],) for axis in labels if kept}
    if not kept:
        raise ValueError(f"`{EXCLUDE}` of '{path}' leaves no run. Remove a line of it.")
    stem = f"{Path(path).stem}{'-quick' if quick else ''}"
    return Experiment(stem, None if output is None else str(output), shown_axes, tuple(named), tuple(kept))


def _require_no_own(settings: Mapping[str, Any], where: str) -> None:
    for name, remedy in _OWN.items():
        if name in settings and not (name == "safety_eval" and settings[name] is True):
            raise ValueError(f"{where} sets `{name}: {settings[name]}`, which an experiment decides. {remedy}.")


def _require_fields(name: str, settings: Mapping[str, Any], where: str) -> None:
    """Refuse a point, a stage or a variant without a name, or that sets what a file decides once for all."""
    if not name.strip():
        raise ValueError(f"{where} has an empty name. Give it one, which the tables show.")
    for key in _OF_FILE:
        if key in settings:
            raise ValueError(f"{where} sets `{key}`, which a file has once, for all runs. Write it beside `{GRID}`.")
    _require_no_own(settings, where)


def _axes(grid: Any, path: str) -> Axes:
    """Return axis -> label -> the fields that it sets."""
    if grid is None:
        return {}
    if not isinstance(grid, dict) or not all(isinstance(axis, str) for axis in grid):
        raise ValueError(
            f"`{GRID}: {shown(grid)}` of '{path}' is no mapping. Write one `field: [value, value]` a line."
        )
    axes = {axis: _points(axis, values, path) for axis, values in grid.items()}
    set_by: dict[str, str] = {}
    for axis, points in axes.items():
        for field in {field for fields in points.values() for field in fields}:
            if field in set_by:
                raise ValueError(
                    f"`{GRID}` of '{path}' sets `{field}` in `{set_by[field]}` and in `{axis}`, and one would win. "
                    "Remove it from one of them."
                )
            set_by[field] = axis
    return axes


def _points(axis: str, values: Any, path: str) -> dict[str, dict[str, Any]]:
    if axis == VARIANT:
        raise ValueError(
            f"`{GRID}` of '{path}' has the axis `{VARIANT}`. Write `{VARIANTS}:` beside `{GRID}:` instead."
        )
    if isinstance(values, dict):
        points = {label(name): fields for name, fields in values.items()}
        if not points or not all(isinstance(fields, dict) for fields in points.values()):
            raise ValueError(
                f"`{axis}: {shown(values)}` in `{GRID}` of '{path}' names no points. Write one "
                "`name: {field: value}` a line, or a list of values."
            )
    elif isinstance(values, list) and values and not any(isinstance(value, dict) for value in values):
        points = {label(value): {axis: value} for value in values}
        if len({label(plain_numbers(value)) for value in values}) < len(values):
            raise ValueError(f"`{axis}: {shown(values)}` in `{GRID}` of '{path}' has a value twice. Keep one.")
    else:
        raise ValueError(
            f"`{axis}: {shown(values)}` in `{GRID}` of '{path}' is no list of values. Write "
            f"`{axis}: [value, value]`, or named points, `name: {{field: value}}`."
        )
    for name, fields in points.items():
        _require_fields(name, fields, f"`{axis}: {name}` of '{path}'")
    _require_different(points, f"The points of `{axis}` of '{path}'")
    return points


def _variants(variants: Any, axes: Axes, path: str) -> dict[str, dict[str, Any]]:
    if not isinstance(variants, dict) or not variants:
        raise ValueError(
            f"`{VARIANTS}: {shown(variants)}` of '{path}' names none. Write one such as "
            "`der: {safety_method: der}` a line."
        )
    named = {label(name): {} if fields is None else fields for name, fields in variants.items()}
    for name, fields in named.items():
        if not isinstance(fields, dict):
            raise ValueError(
                f"The variant `{name}: {shown(fields)}` of '{path}' is no mapping. Write `{name}: {{field: value}}`."
            )
        _require_fields(name, fields, f"The variant `{name}` of '{path}'")
        for axis, points in axes.items():
            twice = sorted(fields.keys() & {field for point in points.values() for field in point})
            if twice:
                raise ValueError(
                    f"The variant `{name}` of '{path}' sets `{twice[0]}`, and so does `{axis}`. Remove one of them."
                )
        if AFTER in fields:
            _check_merge(name, fields, named, path)
    _require_different(named, f"The variants of '{path}'")
    return named


def _require_different(points: Mapping[str, Mapping[str, Any]], what: str) -> None:
    """Refuse two names of the same settings, which would be the same runs twice."""
    names: dict[str, str] = {}
    for name, fields in points.items():
        settings = json.dumps(plain_numbers(fields), sort_keys=True, default=str)
        if settings in names:
            raise ValueError(
                f"{what} have `{names[settings]}` and `{name}` with the same settings, {shown(fields)}. Change or "
                "remove one."
            )
        names[settings] = name


def _check_merge(name: str, fields: Mapping[str, Any], variants: Mapping[str, Any], path: str) -> None:
    after, method = label(fields[AFTER]), fields.get("merge_after_training")
    trained = [other for other, settings in variants.items() if isinstance(settings, dict) and AFTER not in settings]
    if after not in trained:
        raise ValueError(
            f"The variant `{name}` of '{path}' has `{AFTER}: {after}`, which is no variant that is trained. Choose "
            f"from: {', '.join(trained) or 'none'}."
        )
    more = sorted(fields.keys() - {AFTER, ANCHOR, *_MERGE_FIELDS})
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
