"""Turns safety rows into token ids, with labels on the answer alone."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from .forms import as_messages
from .rendering import TemplateOptions, chat_token_ids, has_template, plain_token_ids, text_tokenizer
from .safety_rows import Messages, SafetyRow


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


def prompt_token_ids(
    processing_class: Any, prompt: str | Messages, options: TemplateOptions | None = None
) -> list[int]:
    """Return the token ids of a prompt, up to where its answer begins.

    A text is a bare request, wrapped as a user turn where there is a chat template; one that begins with a special
    token is formatted already, and left as it is. No end of sequence is behind it, even where the tokenizer adds one.

    Args:
        processing_class: the model's tokenizer or processor.
        prompt: text or chat messages.
        options: further variables of the chat template, such as `enable_thinking` or `tools`.

    Raises:
        ValueError: for chat messages without a chat template, or with one that refuses them or drops their text.
    """
    if isinstance(prompt, str) and not _is_request(processing_class, prompt):
        return plain_token_ids(processing_class, prompt)
    _require_template(processing_class)
    return chat_token_ids(processing_class, as_messages(prompt), options, waits=True)


def tokenize_row(
    processing_class: Any, row: SafetyRow, max_length: int | None = None, options: TemplateOptions | None = None
) -> TokenizedRow:
    """Tokenise a row that has an answer; everything after its prompt is labelled.

    Args:
        processing_class: the model's tokenizer or processor.
        row: a safety row with a completion.
        max_length: most tokens of the row; what is longer is cut off at the end.
        options: further variables of the chat template; the row's own win.

    Raises:
        ValueError: as in `prompt_token_ids`.
    """
    options = {**(options or {}), **(row.options or {})}
    prompt_ids = prompt_token_ids(processing_class, row.prompt, options)
    assert row.completion is not None
    if isinstance(row.prompt, str) and not _is_request(processing_class, row.prompt):
        text = row.prompt + str(row.completion)
        end = text_tokenizer(processing_class).eos_token or ""
        ids = plain_token_ids(processing_class, text if text.endswith(end) else text + end)
    else:
        turns = as_messages(row.prompt) + as_messages(row.completion, role="assistant")
        ids = chat_token_ids(processing_class, turns, options, waits=False)
    return answered(prompt_ids, ids, max_length)


def is_formatted(processing_class: Any, text: str) -> bool:
    """Return whether a text is in the chat format already, because it begins with a special token."""
    special = tuple(token for token in text_tokenizer(processing_class).all_special_tokens if token)
    return text.startswith(special)


def _is_request(processing_class: Any, text: str) -> bool:
    return has_template(processing_class) and not is_formatted(processing_class, text)


def answered(prompt_ids: Sequence[int], ids: Sequence[int], max_length: int | None) -> TokenizedRow:
    """Label what follows the common prefix of `prompt_ids` and `ids`."""
    start = 0
    while start < min(len(prompt_ids), len(ids)) and prompt_ids[start] == ids[start]:
        start += 1
    labels = [-100] * start + list(ids[start:])
    return TokenizedRow(list(ids[:max_length]), labels[:max_length])


def _require_template(processing_class: Any) -> None:
    if not has_template(processing_class):
        name = text_tokenizer(processing_class).name_or_path
        raise ValueError(
            f"The safety rows are chat messages, but the tokenizer {name!r} has no chat template. "
            "Set `chat_template_path`, or give the rows as text."
        )


def rows_fingerprint(rows: Sequence[TokenizedRow]) -> str:
    """Return a digest of the token ids and labels of all rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.input_ids, row.labels]).encode())
    return digest.hexdigest()[:16]
