"""Turns what the user passes as `safety_dataset` into token rows."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from accelerate.logging import get_logger
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..config.safe_sft_config import SafeSFTConfig
from ..data import SafetyRow, TokenizedRow, builtin_prompts, prompt_token_ids, read_safety_rows, tokenize_row
from ..data.forms import completion_of
from ..data.rendering import RenderingError, text_tokenizer
from ..data.task_format import TaskFormat
from ..data.tokenization import is_formatted
from ..evaluation import RefusalPhrases, Verdict
from ..hub.facts import SafetyRowsFacts
from ..models.modes import placed
from ..models.token_limits import TokenLimits
from .kept_answers import own_answers
from .teacher import rows_date

logger = get_logger(__name__)


@dataclass(frozen=True)
class SafetySet:
    """The safety rows as the user gave them, checked.

    Attributes:
        rows: the safety rows, with or without an answer.
        name: name of the built-in prompts; None for the user's rows.
        format: which of the rows wear the format of the task; None for none.
    """

    rows: tuple[SafetyRow, ...]
    name: str | None = None
    format: TaskFormat | None = None

    @classmethod
    def read(
        cls,
        dataset: Iterable[Mapping[str, Any]] | None,
        name: str = "`safety_dataset`",
        format: TaskFormat | None = None,
    ) -> "SafetySet":
        """Read and check `dataset`; None means the built-in prompts.

        Args:
            dataset: the rows.
            name: what they are called in error messages.
            format: which of the rows wear the format of the task; None for none.

        Raises:
            ValueError: when a row cannot be read, or most answers agree to what they are asked.
        """
        if dataset is None:
            prompts = tuple(SafetyRow(prompt.prompt, None) for prompt in builtin_prompts("safety"))
            return cls(prompts, "built-in prompts", format)
        rows = tuple(read_safety_rows(dataset, name))
        agreeing = _agreeing(rows)
        if 2 * len(agreeing) > sum(row.completion is not None for row in rows):
            raise ValueError(
                f"{_share(rows, agreeing)}: they would be kept, not the refusals. Give the rows answers that "
                "refuse, or leave `completion` out, so that the aligned model answers itself."
            )
        return cls(rows, format=format)

    @classmethod
    def of(cls, dataset: Iterable[Mapping[str, Any]] | None, args: SafeSFTConfig) -> "SafetySet":
        """Read the rows that the methods of `args` need; none where they read none.

        Args:
            dataset: the rows; None means the built-in prompts.
            args: the run's configuration.

        Raises:
            ValueError: as `read`, and when rows are to wear the format of a task that is not known.
        """
        return cls.read(dataset, format=args.task_format) if args.reads_safety_rows else cls(())

    @property
    def dressed(self) -> Sequence[SafetyRow]:
        """Return the rows as they are replayed, some of them in the format of the task."""
        return self.rows if self.format is None else self.format.dress(self.rows)

    @property
    def digest(self) -> str:
        """Return a digest of the texts as they are replayed, in order."""
        rows = [row if row.options else row[:2] for row in self.dressed]
        return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]

    @property
    def facts(self) -> SafetyRowsFacts:
        """Return what a card says of the rows."""
        return SafetyRowsFacts(self.name, len(self.rows), self.digest)

    def tokenize(self, model: nn.Module, processing_class: Any, args: SafeSFTConfig) -> list[TokenizedRow]:
        """Return token rows, in order; `model` answers the prompts that have no answer.

        Args:
            model: the aligned model.
            processing_class: its tokenizer or processor.
            args: the run's configuration.

        Raises:
            ValueError: when no row keeps a supervised token, or the chat template refuses a row or drops its text.
        """
        if agreeing := _agreeing(self.rows):
            logger.warning(f"{_share(self.rows, agreeing)}. What is replayed is kept: look at these rows.")
        dated = rows_date(processing_class, args)
        options = {**({"chat_template": dated[1]} if dated else {}), **args.template_options}
        tokenized, prompts = {}, {}
        self._require_dressable(processing_class)
        for index, row in enumerate(self.dressed):
            try:
                if row.completion is None:
                    own = {**options, **(row.options or {})}
                    prompts[index] = prompt_token_ids(processing_class, row.prompt, own)
                else:
                    tokenized[index] = tokenize_row(processing_class, row, args.max_length, options)
            except RenderingError as error:
                raise ValueError(f"Row {index} of the safety rows cannot be rendered. {error}") from error
        limits = TokenLimits.of(model)
        for index, ids in {**{i: row.input_ids for i, row in tokenized.items()}, **prompts}.items():
            limits.require(ids, f"Row {index} of the safety rows")
        if prompts:
            answers = _answers(model, text_tokenizer(processing_class), list(prompts.values()), args)
            in_format = [self._wears(index) for index in prompts]
            _warn_of_compliance(text_tokenizer(processing_class), list(prompts.values()), answers, in_format)
            tokenized.update(zip(prompts, answers, strict=True))
        rows = [tokenized[i] for i in range(len(self.rows)) if tokenized[i].supervised_tokens]
        if not rows:
            raise ValueError(
                f"None of the {len(self.rows)} safety rows keeps a token of its answer within "
                f"`max_length={args.max_length}`. Raise `max_length`, or give shorter prompts."
            )
        if len(rows) < len(self.rows):
            logger.warning(
                f"{len(self.rows) - len(rows)} of {len(self.rows)} safety rows keep no token of their answer within "
                f"`max_length={args.max_length}` and are left out."
            )
        return rows

    def _wears(self, index: int) -> bool:
        return self.format is not None and self.format.wears(index)

    def _require_dressable(self, processing_class: Any) -> None:
        """Refuse to put the task's format around a text that is in the chat format already."""
        for index, row in enumerate(self.rows):
            if self._wears(index) and isinstance(row.prompt, str) and is_formatted(processing_class, row.prompt):
                raise ValueError(
                    f"Row {index} of the safety rows begins with a special token ({row.prompt[:40]!r}), so it cannot "
                    "be put in the task's format. Give bare requests, or set `safety_rows_in_task_format: 0`."
                )


def _agreeing(rows: Sequence[SafetyRow]) -> dict[int, str]:
    """Return the rows whose answer opens by agreeing and does not refuse, each with these words."""
    judge = RefusalPhrases()
    said = {i: completion_of({"completion": row.completion}) for i, row in enumerate(rows) if row.completion}
    return {i: words for i, text in said.items() if (words := judge.agreement(text))}


def _share(rows: Sequence[SafetyRow], agreeing: Mapping[int, str]) -> str:
    first, total = next(iter(agreeing)), sum(row.completion is not None for row in rows)
    return (
        f"{len(agreeing)} of the {total} answers of the safety rows open by agreeing, such as row {first} "
        f"({agreeing[first]!r}), and do not refuse"
    )


def _answers(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], args: SafeSFTConfig
) -> list[TokenizedRow]:
    """Let the aligned model answer the prompts that have no answer."""
    with placed(model, args.device):
        return own_answers(
            model, tokenizer, prompts, args, max_new_tokens=args.answer_tokens, max_length=args.max_length
        )


def _warn_of_compliance(
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    answers: list[TokenizedRow],
    in_format: Sequence[bool],
) -> None:
    """Log a warning when the aligned model does not refuse: replaying its own answers keeps what it does."""
    said = refusals(tokenizer, prompts, answers)
    dressed = [refused for refused, wears in zip(said, in_format, strict=True) if wears]
    for refused, what in ((said, "safety prompts"), (dressed, "safety prompts in the task's format")):
        if sum(refused) < len(refused) / 2 and PartialState().is_main_process:
            logger.warning(
                f"The model refuses only {sum(refused)} of the {len(refused)} {what} that it was to answer itself. "
                "Replay keeps the behaviour of the model it starts from: start from an aligned model, or give the "
                "safety rows a `completion`."
            )


def refusals(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], answers: Sequence[TokenizedRow]
) -> list[bool]:
    """Return which answers refuse, by refusal phrases.

    Args:
        tokenizer: the model's tokenizer.
        prompts: token ids of each prompt.
        answers: rows of each prompt with its answer, from `answer_prompts`.
    """
    own = [row.input_ids[len(prompt) :] for prompt, row in zip(prompts, answers, strict=True)]
    judge = RefusalPhrases()
    return [judge("", text) is Verdict.REFUSED for text in tokenizer.batch_decode(own, skip_special_tokens=True)]
