"""What a run of an experiment cannot do, named before anything is run."""

from collections.abc import Iterator
from typing import NamedTuple

from ..models.folders import required_folder
from ..storage.secrets import without_secrets
from .runs import Run
from .stage_recipe import methods_of
from .stages import FIRST, LAST, trains_adapter

#: Fields that name a model or an adapter.
_MODELS = ("model_name_or_path", "adapter_name_or_path", "merge_base", "merge_safe")
#: Fields that name a folder, which may be one of this machine.
_FOLDERS = (*_MODELS, "dataset_name", "task_path", "safety_dataset_name", "importance_path")


class _Rule(NamedTuple):
    """A later stage that cannot be.

    Attributes:
        applies: whether a run, and its methods, are such a stage.
        reason: what is wrong.
        remedy: what to do about it.
    """

    applies: bool
    reason: str
    remedy: str


def require_possible(run: Run) -> None:
    """Check that a later stage can do what its recipe and its anchor ask for; all else can.

    Args:
        run: the run.

    Raises:
        ValueError: when it cannot; the message names the setting and a remedy.
    """
    if run.start is None or run.after is not None:
        return
    for rule in _rules(run):
        if rule.applies:
            raise ValueError(f"{rule.reason}. {rule.remedy}.")


def require_models(run: Run) -> None:
    """Check that a run has its models, and needs no secret that its recipe, which is kept, would lack.

    Args:
        run: the run, whose recipe has been checked.

    Raises:
        FileNotFoundError: when a folder of a model does not exist; a name of the Hub is not looked up.
        ValueError: when no model is named, or a setting may be a secret.
    """
    if run.recipe.get("model_name_or_path") is None:
        raise ValueError("`model_name_or_path` is missing. Set it beside `grid`, in an axis, or in each variant.")
    for name in folders_of(run, _MODELS):
        required_folder(name)
    kept = without_secrets(run.recipe)
    for name, value in run.recipe.items():
        if name != "env" and kept.get(name) != value:
            raise ValueError(
                f"`{name}` holds what may be a secret, and the recipes of runs, which are kept, are written without "
                "any. Remove it, and set HF_TOKEN in the environment, or log in by `hf auth login`."
            )


def folders_of(run: Run, fields: tuple[str, ...] = _FOLDERS) -> Iterator[str]:
    """Yield what a run reads by these fields: folders of this machine, or names of the Hub.

    Args:
        run: the run.
        fields: names of fields.
    """
    yield from (str(run.recipe[field]) for field in fields if isinstance(run.recipe.get(field), str))


def _rules(run: Run) -> list[_Rule]:
    recipe, is_adapter = run.recipe, trains_adapter(run.recipe)
    merge = recipe.get("merge_after_training")
    methods = methods_of(recipe)
    on_task = [method.name for method in methods if method.needs_task_states and not method.keeps_task_losses]
    keeps_base = run.anchor == FIRST and is_adapter and not recipe.get("adapter_name_or_path")
    return [
        _Rule(
            bool(on_task) and not keeps_base,
            f"`safety_method: {recipe.get('safety_method')}` compares with the aligned model on the task's rows, "
            f"which a later stage has at hand only with its adapter off: with `anchor: {FIRST}` and `use_peft: true`",
            "Set both, or choose `der`, `er` or `l2`",
        ),
        _Rule(
            recipe.get("teacher") == "online" and any("teacher" in m.reads for m in methods) and not keeps_base,
            f"`teacher: online` switches the adapter off, which does not leave what `anchor: {run.anchor}` protects",
            f"Leave `teacher` out, or set `anchor: {FIRST}` and `use_peft: true`",
        ),
        *(
            _Rule(
                run.anchor == LAST and recipe.get(name) is not None,
                f"`{name}: {recipe.get(name)}` belongs to the first aligned model, and `anchor: {LAST}` protects "
                "another one in each stage",
                f"Leave it out, and each stage has its own; or set `anchor: {FIRST}`",
            )
            for name in ("importance_path", "teacher_cache")
        ),
        _Rule(
            is_adapter and merge is not None,
            f"`merge_after_training: {merge}` leaves another adapter, or a model, than the next stage can go on with",
            "Write a variant with `after`, which merges what each stage has trained; or train in full",
        ),
        _Rule(
            recipe.get("datasets") is not None or bool(recipe.get("dataset_streaming")),
            "A stage's rows are held out and measured after later stages, and those of `datasets` or of "
            "`dataset_streaming` cannot be",
            "Name them by `task` or `dataset_name`",
        ),
    ]
