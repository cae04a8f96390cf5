"""Checks the rows of the task before TRL, whose errors name none of them, reads them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from datasets import Dataset
from jinja2.exceptions import TemplateError

from ..config.safe_sft_config import SafeSFTConfig
from ..data.rendering import TEMPLATE_ERRORS, has_template
from ..data.safety_rows import template_options
from ..data.values import check_training_rows, require_training_columns
from ..models.token_limits import TokenLimits


def check_rows(args: SafeSFTConfig, dataset: Any) -> None:
    """Check every value of the training rows; rows that are streamed, and plain fine-tuning, are left to TRL.

    Args:
        args: the trainer's configuration, with the column of texts.
        dataset: the trainer's `train_dataset`.

    Raises:
        ValueError: for the first row that cannot be trained on; the message names row and column.
    """
    prepared = args.dataset_kwargs if isinstance(args.dataset_kwargs, dict) else {}
    is_raw = prepared.get("skip_prepare_dataset", False)  # a collator of the user's reads the rows
    if args.safety_terms and isinstance(dataset, Dataset) and not is_raw:
        if not len(dataset):
            raise ValueError("`train_dataset` has no rows. Give at least one.")
        require_training_columns(dataset.column_names, args.dataset_text_field)
        check_training_rows(dataset, args.dataset_text_field, "train_dataset")


def check_token_ids(trainer: Any) -> None:
    """Check that tokenised rows are some, and within what the model has weights for: a GPU would only stop.

    Args:
        trainer: the `SFTTrainer`, with its data sets; those that are streamed are left to TRL.

    Raises:
        ValueError: when no row is left, or for the first with a token or a length that the model lacks.
    """
    trained, evaluated = trainer.train_dataset, trainer.eval_dataset
    if isinstance(trained, Dataset) and "input_ids" in trained.column_names and not len(trained):
        raise ValueError(
            f"No training row keeps a token to learn: `max_length={trainer.args.max_length}` cuts off every answer, "
            "or all labels are -100. Raise `max_length`, or look at the rows."
        )
    named = evaluated if isinstance(evaluated, dict) else {"eval_dataset": evaluated}
    limits = TokenLimits.of(trainer.model)
    for name, dataset in {"train_dataset": trained, **named}.items():
        if isinstance(dataset, Dataset) and "input_ids" in dataset.column_names:
            _check_rows_fit(dataset, name, limits)


def _check_rows_fit(dataset: Dataset, name: str, limits: TokenLimits) -> None:
    packed = "seq_lengths" in dataset.column_names  # then positions begin anew with each example
    column = dataset.data.column
    if limits.allow(column("input_ids"), column("seq_lengths") if packed else None):
        return
    for index, row in enumerate(dataset.select_columns(["input_ids", *(["seq_lengths"] if packed else [])])):
        length = max(row["seq_lengths"]) if packed else None
        limits.require(row["input_ids"], f"Row {index} of '{name}'", length)


@contextmanager
def naming_refused_rows(dataset: Any, processing_class: Any) -> Iterator[None]:
    """Say which row of the task the chat template refuses, where TRL repeats the template's own words alone.

    Args:
        dataset: the trainer's `train_dataset`, as it was given.
        processing_class: the tokenizer or processor that was given; None for the model's own.

    Raises:
        ValueError: naming the row, where it can be found.
    """
    try:
        yield
    except TEMPLATE_ERRORS as error:
        place = _first_refused(dataset, processing_class)
        if place is None and not isinstance(error, TemplateError):
            raise
        which = "A row" if place is None else f"Row {place}"
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"{which} of 'train_dataset' is refused by the chat template: {said}. Correct the row, or set "
            "`chat_template_path` to a template that takes it."
        ) from error


def _first_refused(dataset: Any, processing_class: Any) -> int | None:
    if not isinstance(dataset, Dataset) or processing_class is None or not has_template(processing_class):
        return None
    for index, row in enumerate(dataset):
        turns = row.get("messages") or row.get("prompt")
        if not isinstance(turns, list):
            return None
        answer = row.get("completion") if not row.get("messages") else None
        try:
            processing_class.apply_chat_template(
                [*turns, *(answer or [])], tokenize=False, **template_options(row, f"Row {index}")
            )
        except TEMPLATE_ERRORS:
            return index
    return None
