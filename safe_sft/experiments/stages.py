"""Sequences: stages that are trained one after another, each from the model that the stage before has left.

stages: [gsm8k, sst2, code]   # names of points of an axis (which is then no axis), or of tasks,
stages:                       # or named points of their own
  first: {task: gsm8k}
  poisoned: {task: sst2, poison_dataset: bad.jsonl}
anchor: first                 # what is protected: the first aligned model, or what the `last` stage has left
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..config.earlier_tasks import OF_SCRIPT, OF_TRAINER
from .labels import Axes, label, labels, shown

STAGES, ANCHOR, STAGE = "stages", "anchor", "stage"
FIRST, LAST = "first", "last"
ANCHORS = (FIRST, LAST)
#: The names of tasks, which a stage may bear without a point of that name.
_TASKS = ("gsm8k", "sst2", "code")
_MOST = 20


class Stage(NamedTuple):
    """One stage of a sequence.

    Attributes:
        label: its number and name, such as `2 sst2`.
        fields: the fields that it sets.
    """

    label: str
    fields: Mapping[str, Any]


def read_stages(stages: Any, axes: Axes, path: str) -> tuple[list[Stage], Axes]:
    """Read the stages of a file; a list of names takes the axis whose points it names out of the grid.

    Args:
        stages: what the file says; None where it has no stages.
        axes: the axes of its grid.
        path: path of the file, for messages.

    Returns:
        The stages, and the axes that are left.

    Raises:
        ValueError: when they are no stages, or set what an axis sets as well.
    """
    if stages is None:
        return [], axes
    points: Mapping[str, Any]
    if isinstance(stages, dict):
        points = {label(name): fields for name, fields in stages.items()}
        names, left = list(points), axes
    else:
        names = labels(stages) if isinstance(stages, list) else []
        points, left = _named(names, axes)
    wrong = not 1 < len(names) <= _MOST or not all(isinstance(points.get(name), dict) for name in names)
    if wrong:
        raise ValueError(
            f"`{STAGES}: {shown(stages)}` of '{path}' is no sequence. Write 2 to {_MOST} names of points of one axis, "
            f"or of tasks ({', '.join(_TASKS)}), such as `{STAGES}: [gsm8k, sst2]`; or one `name: {{field: value}}` a "
            "line."
        )
    if STAGE in left:
        raise ValueError(f"`grid` of '{path}' has the axis `{STAGE}` beside `{STAGES}`. Give the axis another name.")
    _require_apart({name: points[name] for name in names}, left, path)
    return [Stage(f"{place} {name}", points[name]) for place, name in enumerate(names, 1)], left


def _named(names: list[str], axes: Axes) -> tuple[Mapping[str, Any], Axes]:
    """Return the points of these names, and the axes but for the one that has them."""
    axis = next((axis for axis, points in axes.items() if set(names) <= points.keys()), None)
    if axis is None:
        return {name: {"task": name} for name in names if name in _TASKS}, axes
    return axes[axis], {other: points for other, points in axes.items() if other != axis}


def _require_apart(points: Mapping[str, Mapping[str, Any]], axes: Axes, path: str) -> None:
    for name, fields in points.items():
        for axis, others in axes.items():
            twice = sorted(fields.keys() & {field for point in others.values() for field in point})
            if twice:
                raise ValueError(
                    f"The stage `{name}` of '{path}' sets `{twice[0]}`, and so does `{axis}` in `grid`. Remove one of "
                    "them."
                )


def anchor_of(settings: dict[str, Any], *, is_staged: bool, path: str) -> str:
    """Take `anchor` out of the settings of a cell, and return it.

    Args:
        settings: all that the cell's file, point, stage and variant set.
        is_staged: whether there are stages.
        path: path of the file, for messages.

    Raises:
        ValueError: when it is unknown, or has no effect.
    """
    given = settings.pop(ANCHOR, None)
    if given is None:
        return FIRST
    if not is_staged:
        raise ValueError(f"`{ANCHOR}: {given}` of '{path}' has no effect without `{STAGES}`. Remove it.")
    if given not in ANCHORS:
        raise ValueError(f"`{ANCHOR}: {shown(given)}` of '{path}' is unknown. Choose from: {', '.join(ANCHORS)}.")
    return str(given)


def plain(recipe: Mapping[str, Any]) -> bool:
    """Return whether a recipe has no reference: it trains without a safety method, and merges nothing."""
    return recipe.get("safety_method") == "none" and recipe.get("merge_after_training") is None


def trains_adapter(recipe: Mapping[str, Any]) -> bool:
    """Return whether a recipe trains an adapter, rather than the model in full."""
    return bool(recipe.get("use_peft") or recipe.get("adapter_name_or_path"))


def earlier_tasks(recipes: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of `earlier_tasks` for the stages that have these recipes, the first stage first."""
    return [
        {"name": earlier_name(place), **{key: recipe[key] for key in (*OF_SCRIPT, *OF_TRAINER) if key in recipe}}
        for place, recipe in enumerate(recipes, 1)
    ]


def earlier_name(number: int) -> str:
    """Return what the measured numbers call the task of an earlier stage."""
    return f"stage {number}"
