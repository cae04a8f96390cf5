"""The recipe of a later stage: where it starts from, what it protects, and which earlier tasks it measures, too."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.names import OWN_IMPORTANCE
from .runs import Run
from .stages import LAST, earlier_tasks, trains_adapter

if TYPE_CHECKING:
    from ..methods import SafetyMethod

#: Where a stage that merges after training leaves the merge, in its model's folder.
_MERGED = "merged"
_DECAY = "importance_decay"


def stage_recipe(run: Run, model: Path | None) -> dict[str, Any]:
    """Return the recipe of a run with the places that its stage adds; of a first stage, the recipe itself.

    Args:
        run: the run.
        model: folder in which the run of the stage before has saved its model; None for a first stage.
    """
    recipe = dict(run.recipe)
    carries = _carries_importance(run)
    if not carries:  # there is none before, or it is not added to
        recipe.pop(_DECAY, None)
    if run.start is None or model is None:
        return recipe
    recipe["earlier_tasks"] = earlier_tasks([stage.recipe for stage in run.stages[:-1]])
    left = model / _MERGED if run.start.recipe.get("merge_after_training") else model
    if run.anchor == LAST:
        recipe |= _space(recipe)
        recipe["adapter_name_or_path" if trains_adapter(recipe) else "model_name_or_path"] = str(left)
    elif run.after is None:
        recipe["start_from"] = str(left)
    if carries:
        recipe["importance_previous"] = str(model / OWN_IMPORTANCE)
    return recipe


def _space(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the space of a weight penalty where a trained adapter would have another than the fresh one before."""
    was_fresh = trains_adapter(recipe) and not recipe.get("adapter_name_or_path")
    chooses = recipe.get("importance_space") is None and any(
        "importance_space" in method.reads for method in methods_of(recipe)
    )
    return {"importance_space": "weight"} if was_fresh and chooses else {}


def _carries_importance(run: Run) -> bool:
    """Return whether a run adds the importance of the stage before to its own (online EWC)."""
    if run.start is None or run.after is not None or run.anchor != LAST:
        return False
    return any("importance_previous" in method.reads for method in methods_of(run.recipe))


def methods_of(recipe: Mapping[str, Any]) -> "list[type[SafetyMethod]]":
    """Return the classes of a recipe's safety methods.

    Args:
        recipe: the resolved recipe.

    Raises:
        ValueError: when a method is unknown.
    """
    from ..config.safe_sft_config import SafeSFTConfig
    from ..methods.registry import method_classes

    default = SafeSFTConfig.__dataclass_fields__["safety_method"].default
    return method_classes(str(recipe.get("safety_method", default)).strip().lower())


def stage_fields(run: Run) -> Mapping[str, Any]:
    """Return the recipe as its stage will have it, with a folder that stands for the stage before.

    Args:
        run: the run; none of its own need be done.
    """
    return stage_recipe(run, None if run.start is None else Path("stage-before"))
