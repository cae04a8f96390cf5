"""Measures what earlier stages were trained on, too: whether the model still can what it has learned before."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trl import DatasetMixtureConfig

from ..config.earlier_tasks import OF_SCRIPT, OF_TRAINER
from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from .arguments import with_values
from .data import load_splits
from .held_out import hold_out
from .measure import Questions, read_questions


def with_earlier(questions: Questions, script: SafeScriptArguments, args: SafeSFTConfig) -> Questions:
    """Add the questions of `earlier_tasks`.

    Args:
        questions: the questions of the run's own task.
        script: the run's `SafeScriptArguments`, with `earlier_tasks`.
        args: the run's `SafeSFTConfig`, whose values a mapping may replace.

    Raises:
        OSError: when a data set cannot be reached.
        ValueError: when a mapping names no rows, or another key.
    """
    for number, given in enumerate(script.earlier_tasks or []):
        name, own, theirs = _read(given, number, args)
        splits, rows = hold_out(own, theirs, load_splits(own, DatasetMixtureConfig()))
        asked = read_questions(own, splits, rows)
        questions = replace(
            questions,
            tasks=(*questions.tasks, *(replace(task, name=name) for task in asked.tasks)),
            earlier_rows=(*questions.earlier_rows, *([] if rows is None else [replace(rows, name=name)])),
        )
    return questions


def _read(
    given: Mapping[str, Any], number: int, args: SafeSFTConfig
) -> tuple[str, SafeScriptArguments, SafeSFTConfig]:
    known = ("name", *OF_SCRIPT, *OF_TRAINER)
    wrong = next((key for key in given if key not in known), None)
    if wrong is not None:
        raise ValueError(
            f"`earlier_tasks` has `{wrong}: {given[wrong]}`, which names no rows of a task. Its keys are: "
            f"{', '.join(known)}."
        )
    try:
        own = SafeScriptArguments(**{"dataset_name": None, **{k: v for k, v in given.items() if k in OF_SCRIPT}})
    except ValueError as error:
        raise ValueError(f"Entry {number} of `earlier_tasks` cannot be used. {error}") from error
    theirs = with_values(args, **{key: value for key, value in given.items() if key in OF_TRAINER})
    return str(given.get("name", f"earlier task {number + 1}")), own, theirs
