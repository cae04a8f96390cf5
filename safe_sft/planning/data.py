"""How many rows and tokens a run has: counted where data and tokenizer are available, else assumed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..data import SafetyRow, TokenizedRow, builtin_prompts, prompt_token_ids, read_safety_rows, tokenize_row
from ..data.rendering import TemplateOptions
from ..data.subset import evenly_spread
from ..data.task_format import TaskFormat

#: Rows that are tokenised to learn how long rows are.
SAMPLE = 256
#: Tokens of a safety prompt with its template where no tokenizer is at hand.
ASSUMED_PROMPT = 64


@dataclass(frozen=True)
class Rows:
    """The numbers of rows and tokens of a data set.

    Attributes:
        rows: number of rows; None when the data is not available.
        tokens: mean number of tokens of a row.
        longest: largest number of tokens of a row.
        supervised: mean number of supervised tokens of a row.
        counted: whether every row was tokenised.
        note: what was assumed, in words; empty when nothing was.
    """

    rows: int | None
    tokens: float
    longest: int
    supervised: float
    counted: bool = False
    note: str = ""


def assumed_rows(rows: int | None, length: int, what: str) -> Rows:
    """Assume rows that are not available: each as long as allowed, half of it supervised."""
    return Rows(
        rows, length, length, length / 2, note=f"{what}: every row of {length} tokens, half of them supervised"
    )


def assumed_safety_rows(rows: int | None, max_length: int | None, max_new_tokens: int) -> Rows:
    """Assume safety rows that cannot be counted: a short prompt, and an answer as long as the model may give."""
    length = min(ASSUMED_PROMPT + max_new_tokens, max_length or ASSUMED_PROMPT + max_new_tokens)
    note = f"safety rows: prompts of {ASSUMED_PROMPT} tokens, answers of {max_new_tokens}"
    return Rows(rows, length, length, min(max_new_tokens, length), note=note)


def count_task_rows(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    options: TemplateOptions | None = None,
) -> Rows:
    """Count the tokens of a sample of the task's rows.

    Args:
        rows: rows with `prompt` + `completion`, `messages` or `text`.
        tokenizer: the model's tokenizer.
        max_length: most tokens of a row; longer ones are cut.
        options: further variables of the chat template; those of a row win.
    """
    sample = evenly_spread(rows, SAMPLE)
    lengths = [_task_lengths(row, tokenizer, max_length, options) for row in sample]
    return _counted(len(rows), lengths, "task rows")


def count_safety_rows(
    rows: Iterable[Mapping[str, Any]] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int | None,
    max_new_tokens: int,
    max_answer_tokens: int | None = None,
    options: TemplateOptions | None = None,
    format: TaskFormat | None = None,
) -> Rows:
    """Count the safety rows; an answer that the model is to give counts as long as it may be.

    Args:
        rows: the safety rows; None for the built-in prompts.
        tokenizer: the model's tokenizer; None when it is not available.
        max_length: most tokens of a row; longer ones are cut.
        max_new_tokens: most tokens of an answer that the model gives.
        max_answer_tokens: most tokens of an answer that are used, from its beginning; None for all.
        options: further variables of the chat template; those of a row win.
        format: which of the rows wear the format of the task; None for none.
    """
    if rows is None:
        read = [SafetyRow(prompt.prompt, None) for prompt in builtin_prompts("safety")]
    else:
        read = read_safety_rows(rows)
    read = read if format is None else format.dress(read)
    if tokenizer is None:
        return assumed_safety_rows(len(read), max_length, max_new_tokens)
    sample = evenly_spread(read, SAMPLE)
    longest = (max_length, max_new_tokens, max_answer_tokens)
    lengths = [_safety_lengths(row, tokenizer, *longest, options) for row in sample]
    counted = _counted(len(read), lengths, "safety rows")
    if all(row.completion is not None for row in sample):
        return counted
    note = f"safety rows: answers of {max_new_tokens} tokens where the model answers itself"
    return Rows(counted.rows, counted.tokens, counted.longest, counted.supervised, note=note)


def _counted(rows: int, lengths: list[tuple[int, int]], what: str) -> Rows:
    tokens, supervised = [t for t, _ in lengths], [s for _, s in lengths]
    note = "" if len(lengths) == rows else f"{what}: {len(lengths)} of {rows} were tokenised"
    mean = len(lengths) or 1
    return Rows(rows, sum(tokens) / mean, max(tokens), sum(supervised) / mean, counted=not note, note=note)


def _task_lengths(
    row: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    options: TemplateOptions | None,
) -> tuple[int, int]:
    if isinstance(row.get("text"), str):
        tokens = len(tokenizer(row["text"])["input_ids"])
        tokens = min(tokens, max_length or tokens)
        return tokens, tokens - 1
    tokenized = tokenize_row(tokenizer, read_safety_rows([row])[0], max_length, options)
    return _lengths(tokenized)


def _safety_lengths(
    row: SafetyRow,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    max_new_tokens: int,
    max_answer_tokens: int | None,
    options: TemplateOptions | None,
) -> tuple[int, int]:
    if row.completion is not None:
        return _lengths(tokenize_row(tokenizer, row, max_length, options).beginning(max_answer_tokens))
    prompt = len(prompt_token_ids(tokenizer, row.prompt, {**(options or {}), **(row.options or {})}))
    tokens = min(prompt + max_new_tokens, max_length or prompt + max_new_tokens)
    return tokens, max(0, tokens - prompt)


def _lengths(row: TokenizedRow) -> tuple[int, int]:
    return len(row.input_ids), row.supervised_tokens
