"""The rows that a recipe trains on and replays, as far as data and tokenizer are on this machine."""

import argparse
from pathlib import Path
from typing import Any

from trl import DatasetMixtureConfig, ModelConfig

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data.files import FILE_BUILDERS

#: Longest row that is assumed where neither `max_length` nor the data says.
_ASSUMED_LENGTH = 1024


def _rows(
    own: argparse.Namespace,
    script: SafeScriptArguments,
    args: SafeSFTConfig,
    model: ModelConfig,
    mixture: DatasetMixtureConfig,
) -> tuple[Any, Any]:
    """Task rows and safety rows: counted where data and tokenizer are on this machine, else assumed."""
    from ..run.data import safety_rows
    from . import assumed_rows, assumed_safety_rows, count_safety_rows

    tokenizer = _local_tokenizer(model, script.adapter_name_or_path)
    length = own.row_tokens or args.max_length or _ASSUMED_LENGTH
    local = _local_task_rows(script, args, mixture, model)
    task = None
    if local is not None and tokenizer is not None and not (own.rows or own.row_tokens):
        task = _counted(local, tokenizer, args.max_length)
    if task is None:
        task = assumed_rows(own.rows or (script.task_size if local is None else len(local)), length, "task rows")
    name = script.safety_dataset_name
    if name is not None and not _is_local(name):
        return task, assumed_safety_rows(None, args.max_length, args.replay_max_new_tokens)
    return task, count_safety_rows(safety_rows(script), tokenizer, args.max_length, args.replay_max_new_tokens)


def _counted(rows: Any, tokenizer: Any, max_length: int | None) -> Any:
    """The rows, tokenised; None where they are in a form that only TRL reads."""
    from . import count_task_rows

    try:
        return count_task_rows(rows, tokenizer, max_length)
    except ValueError:
        return None


def _local_tokenizer(model: ModelConfig, adapter: str | None) -> Any:
    """The tokenizer of the adapter, or of the model, where it is on this machine, else None."""
    from transformers import AutoTokenizer

    from ..models.folders import tokenizer_source

    try:
        source = tokenizer_source(str(model.model_name_or_path), adapter)
        return AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError):
        return None


def _local_task_rows(
    script: SafeScriptArguments, args: SafeSFTConfig, mixture: DatasetMixtureConfig, model: ModelConfig
) -> Any:
    """The training rows where they are on this machine, else None; poison, which replaces rows, is not drawn."""
    from ..run.data import load_splits, split_of, task_data
    from ..run.measure import Questions
    from ..trainer.safety_set import SafetySet

    if script.task:
        names = [script.task_path]
    else:
        names = [data.path for data in mixture.datasets] if mixture.datasets else [script.dataset_name]
    if script.dataset_streaming or not all(name and _is_local(name) for name in names):
        return None
    clean = SafeScriptArguments(
        dataset_name=script.dataset_name,
        dataset_config=script.dataset_config,
        dataset_train_split=script.dataset_train_split,
        task=script.task,
        task_path=script.task_path,
        task_size=script.task_size,
        safety_eval=False,
    )
    loaded = load_splits(clean, mixture)
    splits = task_data(clean, args, model, loaded, safety=SafetySet.read(None), questions=Questions())
    return split_of(splits, script.dataset_train_split, "dataset_train_split")


def _is_local(name: str) -> bool:
    return Path(name).suffix in FILE_BUILDERS or Path(name).is_dir()
