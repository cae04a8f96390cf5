"""What runs compute before training and share, foreseen from their recipes; the runs themselves go by digests."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .runs import Run
from .stage_recipe import methods_of
from .stages import LAST, trains_adapter

#: Fields that say what the aligned model computes.
_MODEL = (
    *("model_name_or_path", "model_revision", "adapter_name_or_path", "dtype", "attn_implementation", "bf16", "fp16"),
    *("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "use_cpu", "chat_template_path"),
)
#: Fields that make a fresh adapter, which is drawn by the seed, and is in a model's digest though it changes nothing.
_ADAPTER = (
    *("use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save"),
    *("use_rslora", "use_dora", "seed"),
)
_SAFETY_ROWS = (
    *("safety_dataset_name", "safety_dataset_config", "safety_dataset_split", "max_length", "chat_template_kwargs"),
    *("safety_rows_in_task_format", "safety_task_template", "replay_max_new_tokens", "safety_eval_batch_size"),
)
_TASK = (
    *("task", "task_path", "task_size", "task_eval_size", "dataset_name", "dataset_config", "dataset_train_split"),
    *("poison_ratio", "poison_kind", "poison_dataset", "poison_trigger", "safety_mix_ratio", "seed", "data_seed"),
)
_EVALUATED = ("safety_eval_prompts", "safety_eval_max_new_tokens", "safety_eval_batch_size", "chat_template_kwargs")

ALIGNED_ANSWERS, OWN_ANSWERS, TASK_ANSWERS = "aligned answers", "own safety answers", "answers to the task"
IMPORTANCE, TEACHER, TASK_LOSSES = "importance", "teacher cache", "losses on the task"


class Shared(NamedTuple):
    """Something that is computed once.

    Attributes:
        what: what it is, in words.
        digests: the runs that use it.
    """

    what: str
    digests: tuple[str, ...]


def shared_work(runs: Iterable[Run]) -> list[Shared]:
    """Return what runs compute before training, each thing once, with the runs that use it.

    Args:
        runs: the runs of an experiment; merges compute nothing.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if run.after is None:
            for what, key in _keys(run).items():
                groups.setdefault((what, key), []).append(run.digest)
    return [Shared(what, tuple(digests)) for (what, _), digests in groups.items()]


def _keys(run: Run) -> dict[str, str]:
    """Return a digest of what each kind of work depends on."""
    recipe, methods = run.recipe, methods_of(run.recipe)
    place = run.start.digest if run.start is not None and run.anchor == LAST else None
    replays = any(method.needs_replay for method in methods)
    estimating = [m.name for m in methods if "importance_path" in m.reads and not recipe.get("importance_path")]
    dressed = ("task",) if recipe.get("safety_rows_in_task_format") else ()
    cut = None if estimating or not replays else recipe.get("replay_max_answer_tokens", "default")
    rows = [_digest(recipe, (*_SAFETY_ROWS, *dressed)), cut]
    keys = {ALIGNED_ANSWERS: _digest(recipe, (*_MODEL, *_ADAPTER, *_EVALUATED), place)}
    if methods:
        asked = "all" if recipe.get("safety_from_task") else "some"
        keys[TASK_ANSWERS] = _digest(recipe, (*_MODEL, *_ADAPTER, *_TASK), place, asked)
    if recipe.get("safety_dataset_name") is None and (replays or estimating or any(m.needs_rows for m in methods)):
        keys[OWN_ANSWERS] = _digest(recipe, (*_MODEL, *_ADAPTER), place, rows)
    if estimating:
        keys[IMPORTANCE] = _digest(recipe, (*_MODEL, *_LAYOUT), place, rows, estimating, _drawn(recipe))
    if any(method.keeps_task_losses for method in methods) and _caches(run):
        keys[TASK_LOSSES] = _digest(recipe, (*_MODEL, *_TASK, "max_length", "chat_template_kwargs"), place)
    if any(method.needs_teacher for method in methods) and _caches(run) and not recipe.get("teacher_cache"):
        from_task = [recipe.get(name) for name in _TASK] if recipe.get("safety_from_task") else None
        fields = (*_MODEL, "replay_max_answer_tokens")
        keys[TEACHER] = _digest(recipe, fields, place, rows, from_task)
    return keys


_LAYOUT = (
    *("use_peft", "lora_target_modules", "lora_modules_to_save", "importance_space", "importance_estimator"),
    "per_device_train_batch_size",
)


def _drawn(recipe: Mapping[str, Any]) -> Any:
    return recipe.get("seed") if recipe.get("importance_estimator") == "sampled" else None


def _caches(run: Run) -> bool:
    """Return whether the aligned model runs before training alone: it does unless it is a fresh adapter's base."""
    recipe = run.recipe
    later = run.start is not None and run.anchor == LAST
    fresh = trains_adapter(recipe) and not later and not recipe.get("adapter_name_or_path")
    return recipe.get("teacher") == "cached" or not fresh


def _digest(recipe: Mapping[str, Any], fields: Iterable[str], *more: Any) -> str:
    content = [[name, recipe.get(name)] for name in fields]
    return hashlib.sha256(json.dumps([content, more], sort_keys=True, default=str).encode()).hexdigest()
