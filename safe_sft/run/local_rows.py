"""Counts the rows that a recipe trains on and replays, as far as data and tokenizer are on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets.utils.logging import disable_progress_bar, enable_progress_bar
from trl import DatasetMixtureConfig, ModelConfig

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data.files import FILE_BUILDERS
from ..models.folders import tokenizer_source
from ..models.loading import load_tokenizer
from ..planning.data import Rows, assumed_rows, assumed_safety_rows, count_safety_rows, count_task_rows
from ..trainer.safety_set import SafetySet
from .arguments import with_task_template
from .data import load_splits, safety_rows, split_of, task_data
from .held_out import hold_out
from .measure import Questions

#: Longest row that is assumed where neither `max_length` nor the data says.
_ASSUMED_LENGTH = 1024


def local_rows(
    script: SafeScriptArguments,
    args: SafeSFTConfig,
    model: ModelConfig,
    mixture: DatasetMixtureConfig,
    *,
    rows: int | None = None,
    row_tokens: int | None = None,
) -> tuple[Rows, Rows]:
    """Return the task rows and the safety rows: counted where data and tokenizer are on this machine, else assumed.

    Args:
        script: names of the data.
        args: the run's `SafeSFTConfig`.
        model: names of the model and the adapter.
        mixture: TRL's mixture of data sets, instead of `script.dataset_name`.
        rows: number of task rows; None counts them.
        row_tokens: number of tokens of each task row; None counts them.
    """
    with _quiet():
        tokenizer = _local_tokenizer(model, script.adapter_name_or_path)
        length = row_tokens or args.max_length or _ASSUMED_LENGTH
        local = _local_task_rows(script, args, mixture, model)
        task = None
        if local is not None and tokenizer is not None and not (rows or row_tokens):
            task = _counted(local, tokenizer, args)
        if task is None:
            task = assumed_rows(rows or (script.task_size if local is None else len(local)), length, "task rows")
        name = script.safety_dataset_name
        if name is not None and not _is_local(name):
            return task, assumed_safety_rows(None, args.max_length, args.answer_tokens)
        return task, count_safety_rows(
            safety_rows(script),
            tokenizer,
            args.max_length,
            args.answer_tokens,
            args.replayed_tokens,
            args.template_options,
            with_task_template(script, args).task_format,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of `datasets`, which would disturb the output in JSON."""
    disable_progress_bar()
    try:
        yield
    finally:
        enable_progress_bar()


def _counted(rows: Any, tokenizer: Any, args: SafeSFTConfig) -> Rows | None:
    """Count the rows' tokens; None where the rows have a form that only TRL reads."""
    try:
        return count_task_rows(rows, tokenizer, args.max_length, args.template_options)
    except ValueError:
        return None


def _local_tokenizer(model: ModelConfig, adapter: str | None) -> Any:
    """Return the tokenizer of the adapter or of the model, if it is on this machine, else None."""
    try:
        source = tokenizer_source(str(model.model_name_or_path), adapter)
        return load_tokenizer(source, local_files_only=True)
    except (OSError, ValueError):
        return None


def _local_task_rows(
    script: SafeScriptArguments, args: SafeSFTConfig, mixture: DatasetMixtureConfig, model: ModelConfig
) -> Any:
    """Return the training rows if they are on this machine, else None; poison, which replaces rows, is not drawn."""
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
    loaded, _ = hold_out(script, args, load_splits(clean, mixture))
    splits = task_data(clean, args, model, loaded, safety=SafetySet.read(None), questions=Questions())
    return split_of(splits, script.dataset_train_split, "dataset_train_split")


def _is_local(name: str) -> bool:
    return Path(name).suffix in FILE_BUILDERS or Path(name).is_dir()
