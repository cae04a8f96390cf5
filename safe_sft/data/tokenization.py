"""Turns safety rows into token ids, with labels on the answer alone."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from .forms import as_messages
from .safety_rows import Messages, SafetyRow

_MARK = "a system prompt to look for"


class TokenizedRow(NamedTuple):
    """One safety row as token ids.

    Attributes:
        input_ids: token ids of the prompt and the answer.
        labels: `-100` on the prompt, the token itself on the answer.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def supervised_tokens(self) -> int:
        """How many predictions the row supervises: its first token is never predicted."""
        return sum(label != -100 for label in self.labels[1:])

    def beginning(self, tokens: int | None) -> "TokenizedRow":
        """Return the row up to the first `tokens` supervised tokens of its answer; the whole row for None."""
        supervised = [place for place, label in enumerate(self.labels) if place and label != -100]
        if tokens is None or len(supervised) <= tokens:
            return self
        end = supervised[tokens - 1] + 1
        return TokenizedRow(self.input_ids[:end], self.labels[:end])


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, prompt: str | Messages) -> list[int]:
    """Return the token ids of a prompt, up to where its answer begins.

    A text is a bare request, wrapped as a user turn where the tokenizer has a chat template; one that begins with a
    special token is formatted already, and left as it is.

    Args:
        tokenizer: the model's tokenizer.
        prompt: text or chat messages.

    Raises:
        ValueError: for chat messages without a chat template.
    """
    if isinstance(prompt, str) and not _is_request(tokenizer, prompt):
        return _text_ids(tokenizer, prompt)
    _require_template(tokenizer)
    messages = as_messages(prompt)
    return _ids(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True))


def tokenize_row(tokenizer: PreTrainedTokenizerBase, row: SafetyRow, max_length: int | None = None) -> TokenizedRow:
    """Tokenise a row that has an answer; everything after its prompt is labelled.

    Args:
        tokenizer: the model's tokenizer.
        row: a safety row with a completion.
        max_length: most tokens of the row; what is longer is cut off at the end.
    """
    prompt_ids = prompt_token_ids(tokenizer, row.prompt)
    assert row.completion is not None
    if isinstance(row.prompt, str) and not _is_request(tokenizer, row.prompt):
        text = row.prompt + str(row.completion)
        end = tokenizer.eos_token or ""
        ids = _text_ids(tokenizer, text if text.endswith(end) else text + end)
    else:
        turns = as_messages(row.prompt) + as_messages(row.completion, role="assistant")
        ids = _ids(tokenizer.apply_chat_template(turns, return_dict=True))
    return answered(prompt_ids, ids, max_length)


def shows_system_prompts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template has a place for a system prompt: some raise (Gemma's), some drop it silently."""
    turns = [{"role": "system", "content": _MARK}, {"role": "user", "content": "?"}]
    try:
        return _MARK in str(tokenizer.apply_chat_template(turns, tokenize=False))
    except TemplateError:
        return False


def fold_system_prompt(turns: Messages) -> Messages:
    """Move the system prompt, which comes first in `messages`, to the head of the first user turn."""
    system, first, *others = turns
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *others]


def _is_request(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    special = tuple(token for token in tokenizer.all_special_tokens if token)
    return bool(tokenizer.chat_template) and not text.startswith(special)


def _text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    has_start = bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
    return _ids(tokenizer(text, add_special_tokens=not has_start))


def _ids(encoding: Any) -> list[int]:
    return list(encoding["input_ids"])


def answered(prompt_ids: Sequence[int], ids: Sequence[int], max_length: int | None) -> TokenizedRow:
    """Label what follows the common prefix of `prompt_ids` and `ids`."""
    start = 0
    while start < min(len(prompt_ids), len(ids)) and prompt_ids[start] == ids[start]:
        start += 1
    labels = [-100] * start + list(ids[start:])
    return TokenizedRow(list(ids[:max_length]), labels[:max_length])


def _require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise ValueError(
            f"The safety rows are chat messages, but the tokenizer {tokenizer.name_or_path!r} has no chat template. "
            "Set `chat_template_path`, or give the rows as text."
        )


def rows_fingerprint(rows: Sequence[TokenizedRow]) -> str:
    """Return a digest of the token ids and labels of all rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.input_ids, row.labels]).encode())
    return digest.hexdigest()[:16]
