"""Holds rows of the task out of training, so that what a run learned can be measured."""

import random
from typing import Any

from accelerate.logging import get_logger
from datasets import Dataset, DatasetDict

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data.forms import FORM_COLUMNS
from ..data.mixing import POISONED
from ..data.subset import evenly_spread
from ..evaluation.utility.task_loss import TaskRows
from .data import Splits, check_rows, task_source

logger = get_logger(__name__)

#: At most this share of the training rows is held out.
_MOST = 0.1


def hold_out(script: SafeScriptArguments, args: SafeSFTConfig, splits: Splits) -> tuple[Splits, TaskRows | None]:
    """Take the rows that the task loss is measured on from the split `test`, or, without one, out of training.

    Held-out rows are never poison: it is mixed in afterwards, and rows that are marked `poisoned` stay in training.

    Args:
        script: the run's `SafeScriptArguments`, with `task_eval_size`.
        args: the run's `SafeSFTConfig`, with the seed and the longest row.
        splits: the splits of the task, as loaded.

    Returns:
        The splits, and the held-out rows; None where nothing is measured or no row can be spared.

    Raises:
        ValueError: when there is no such split, or for a row that cannot be used.
    """
    check_rows(script, args, splits)
    train = splits.get(script.dataset_train_split)
    if not script.safety_eval or not script.task_eval_size or not _has_answers(train, args.dataset_text_field):
        return splits, None
    test = splits.get("test")
    if isinstance(test, Dataset) and len(test) and script.dataset_train_split != "test":
        rows = evenly_spread(test, script.task_eval_size)
    else:
        kept, held = _drawn(script, args, train)
        if not held:
            return splits, None
        rows = [train[place] for place in held]
        splits = DatasetDict({**splits, script.dataset_train_split: train.select(kept)})
        logger.info(f"{len(held)} rows of the task are held out of training, to measure the task loss on.")
    form = (args.dataset_text_field, args.max_length, args.template_options)
    return splits, TaskRows(script.task or "task", rows, task_source(script), *form)


def _has_answers(train: Any, text: str) -> bool:
    forms = [*FORM_COLUMNS.values(), (text,)]
    return isinstance(train, Dataset) and any(set(form) <= set(train.column_names) for form in forms)


def _drawn(script: SafeScriptArguments, args: SafeSFTConfig, train: Dataset) -> tuple[list[int], list[int]]:
    """Return the places of the rows that stay and of those that are held out, in order."""
    marks = train[POISONED] if POISONED in train.column_names else [False] * len(train)
    clean = [place for place, poisoned in enumerate(marks) if not poisoned]
    spare = len(train) if script.task_size is None else len(train) - script.task_size
    count = max(0, min(script.task_eval_size, int(_MOST * len(train)), spare, len(clean)))
    seed = args.seed if args.data_seed is None else args.data_seed
    held = set(random.Random(f"held-out-{seed}").sample(clean, count))
    return [place for place in range(len(train)) if place not in held], sorted(held)
