"""Checks the rows of the task before TRL, whose errors name none of them, reads them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow.compute
from datasets import Dataset
from jinja2.exceptions import TemplateError

from ..config.safe_sft_config import SafeSFTConfig
from ..data.rendering import TEMPLATE_ERRORS, has_template
from ..data.safety_rows import template_options
from ..data.values import check_training_rows, require_training_columns
from ..models.parts import vocabulary_size


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


def check_token_ids(model: Any, dataset: Any, max_length: int | None) -> None:
    """Check that tokenised rows are some, and have no token that the model lacks: a GPU would only stop.

    Args:
        model: the model.
        dataset: the trainer's `train_dataset`, tokenised.
        max_length: most tokens of a row, for the message.

    Raises:
        ValueError: when no row is left, or for the first with such a token, naming row, token and vocabulary.
    """
    if not isinstance(dataset, Dataset) or "input_ids" not in dataset.column_names:
        return
    if not len(dataset):
        raise ValueError(
            f"No training row keeps a token to learn: `max_length={max_length}` cuts off every answer, or all labels "
            "are -100. Raise `max_length`, or look at the rows."
        )
    size = vocabulary_size(model)
    chunks = dataset.data.column("input_ids").chunks  # one at a time: together, a large data set fills the memory
    if all((pyarrow.compute.max(chunk.flatten()).as_py() or 0) < size for chunk in chunks):
        return
    for index, ids in enumerate(dataset["input_ids"]):
        require_known(ids, size, f"Row {index} of 'train_dataset'")


def require_known(ids: Sequence[int], size: int, what: str) -> None:
    """Check that a model has every token of a row.

    Args:
        ids: token ids.
        size: number of tokens that the model has.
        what: what the row is, at the beginning of the message.

    Raises:
        ValueError: when one is beyond.
    """
    if len(ids) and max(ids) >= size:
        raise ValueError(
            f"{what} has the token {max(ids)}, and the model has {size} tokens. Use the model's own tokenizer, or "
            "give the model rows for new tokens (`model.resize_token_embeddings(len(tokenizer))`)."
        )


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
