"""Reports what a model was trained on, in numbers and names."""

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from trl import DatasetMixtureConfig

from ..config.script_arguments import SafeScriptArguments
from ..data.mixing import FROM_SAFETY_SET, POISONED
from ..data.tasks import TASKS
from ..trainer.safety_set import SafetySet
from .data import Splits, task_source


@dataclass(frozen=True)
class DataReport:
    """What a model was trained on, for its card.

    Attributes:
        task: name of the task, or None for a data set of the user's.
        source: where the task's rows come from: Hub name, file or folder.
        revision: revision of the source; None where none is pinned.
        rows: number of rows of the training split; None when they are streamed.
        poisoned_rows: how many of these rows are poison.
        poison_kind: kind of the poison.
        poison_source: where the poison comes from; None for the default of its kind.
        poison_trigger: the phrase of a backdoor; None for the default one.
        safety_rows_mixed: how many training rows come from the safety set.
        safety_set: name of the safety set.
        safety_size: number of rows of the safety set.
        safety_hash: digest of the safety set's prompts and answers.
        rows_screened_out: how many rows were left out because they were flagged by `screen: drop`.
    """

    task: str | None
    source: str
    revision: str | None
    rows: int | None
    poisoned_rows: int
    poison_kind: str | None
    poison_source: str | None
    poison_trigger: str | None
    safety_rows_mixed: int
    safety_set: str
    safety_size: int
    safety_hash: str
    rows_screened_out: int = 0


def data_report(
    script: SafeScriptArguments, splits: Splits, safety: SafetySet, mixture: DatasetMixtureConfig | None = None
) -> DataReport:
    """Report what is in the splits that `task_data` returned.

    Args:
        script: names of the data.
        splits: the splits, from `task_data`.
        safety: the safety rows.
        mixture: TRL's mixture of data sets, if it was used.
    """
    train = splits[script.dataset_train_split]
    source, revision = _pinned_source(script, mixture)
    poisoned = _marked(train, POISONED)
    chosen = bool(script.poison_ratio)
    return DataReport(
        task=script.task,
        source=source,
        revision=revision,
        rows=len(train) if isinstance(train, Dataset) else None,
        poisoned_rows=poisoned,
        poison_kind=script.poison_kind if chosen else None,
        poison_source=script.poison_dataset if chosen else None,
        poison_trigger=script.poison_trigger if chosen else None,
        safety_rows_mixed=_marked(train, FROM_SAFETY_SET),
        safety_set=str(script.safety_dataset_name or safety.name),
        safety_size=len(safety.rows),
        safety_hash=safety.digest,
    )


def _marked(train: Any, column: str) -> int:
    """Count the rows that a column of booleans marks."""
    has_it = isinstance(train, Dataset) and column in train.column_names
    return sum(bool(mark) for mark in train[column]) if has_it else 0


def _pinned_source(script: SafeScriptArguments, mixture: DatasetMixtureConfig | None) -> tuple[str, str | None]:
    pinned = script.task is not None and not script.task_path
    return task_source(script, mixture), TASKS[str(script.task)].source.revision if pinned else None
