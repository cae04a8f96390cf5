"""Renders chat messages as TRL renders the rows of the task, and never without their text."""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from .forms import as_messages, text_of
from .safety_rows import Messages
from .text import normalise

_MARK = "a system prompt to look for"
_TODAY = re.compile(r"""\bstrftime_now\(\s*(["'])(.*?)\1\s*\)""")
_ANOTHER_DAY = date(1999, 12, 31)
#: Roles whose text a chat template may write in another form, such as JSON; that of all others stands as it is.
_TOOLS = ("tool", "function", "ipython", "observation")

#: What a template may end in: it is a program, and its errors are not all of Jinja's own kind.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)

TemplateOptions = Mapping[str, Any]


class RenderingError(ValueError):
    """Messages that a chat template refuses, or whose text it drops."""


def text_tokenizer(processing_class: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a processor; a tokenizer is its own."""
    return processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class


def has_template(processing_class: Any) -> bool:
    """Whether a tokenizer or a processor has a chat template."""
    return bool(_renderer(processing_class).chat_template)


def chat_token_ids(
    processing_class: Any, messages: Messages, options: TemplateOptions | None = None, *, waits: bool
) -> list[int]:
    """Return the token ids of chat messages.

    A processor gets content in parts, as from TRL, and a tokenizer gets texts; where that loses the text, the other
    form is tried. A system prompt that the template has no place for goes to the head of the first user turn.

    Args:
        processing_class: the model's tokenizer or processor, with a chat template.
        messages: chat messages, with texts or parts of type text.
        options: further variables of the chat template, such as `enable_thinking` or `tools`.
        waits: whether the messages wait for the model's answer.

    Raises:
        RenderingError: when the template refuses the messages, or what it makes of them lacks a text of theirs.
    """
    renderer, settings = _renderer(processing_class), {"add_generation_prompt": waits, **(options or {})}
    if len(messages) > 1 and messages[0]["role"] == "system" and not shows_system_prompts(processing_class):
        messages = fold_system_prompt(messages)
    lost, refusal = "", None
    for form in _forms(renderer, messages):
        try:
            text = str(renderer.apply_chat_template(form, tokenize=False, **settings))
        except TEMPLATE_ERRORS as error:
            refusal = refusal or error
            continue
        lost = _lost(text, form)
        if not lost:
            found: Any = renderer.apply_chat_template(form, tokenize=True, return_dict=True, **settings)
            return _flat(found["input_ids"])
    if refusal is not None and not lost:
        raise RenderingError(
            f"The chat template refuses it: {' '.join(str(refusal).split())[:200]} Change the messages, or set "
            "`chat_template_path`."
        ) from refusal
    raise RenderingError(
        f"The chat template drops the text {lost[:60]!r}, so the model would not see it. Set `chat_template_path` to "
        "a template that writes the content of every message."
    )


def plain_token_ids(processing_class: Any, text: str) -> list[int]:
    """Return the token ids of a text as it is, without an end of sequence that the tokenizer adds behind it.

    Args:
        processing_class: the model's tokenizer or processor.
        text: a text that begins with the start of sequence, or is to get one where the tokenizer adds it.
    """
    tokenizer = text_tokenizer(processing_class)
    has_start = bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
    bare = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if has_start:
        return bare
    ids = list(tokenizer(text)["input_ids"])
    for end in range(len(ids), len(bare) - 1, -1):
        if ids[end - len(bare) : end] == bare:
            return ids[:end]
    return ids


def shows_system_prompts(processing_class: Any) -> bool:
    """Whether the chat template has a place for a system prompt: some raise (Gemma's), some drop it silently."""
    renderer = _renderer(processing_class)
    turns = [{"role": "system", "content": _MARK}, {"role": "user", "content": "?"}]
    for form in _forms(renderer, turns):
        try:
            if _MARK in str(renderer.apply_chat_template(form, tokenize=False)):
                return True
        except TEMPLATE_ERRORS:
            continue
    return False


def dated_template(processing_class: Any, day: date, options: TemplateOptions | None = None) -> str | None:
    """Return the chat template with one date in the place of today's; None where it does not write the date.

    Args:
        processing_class: the model's tokenizer or processor.
        day: the date to write, as the templates of Llama 3.2, Granite and others write today's.
        options: further variables of the chat template, which may take the date's place.
    """
    if not has_template(processing_class):
        return None
    renderer, turns = _renderer(processing_class), [{"role": "user", "content": "?"}]
    own = renderer.chat_template
    template = str(own.get("default") if isinstance(own, dict) else own)
    dated, other = (_with_date(template, d) for d in (day, _ANOTHER_DAY))
    if dated == template:
        return None
    for form in _forms(renderer, turns):
        try:
            shown = [
                renderer.apply_chat_template(form, tokenize=False, **{**(options or {}), "chat_template": text})
                for text in (dated, other)
            ]
        except TEMPLATE_ERRORS:
            continue
        if shown[0] != shown[1]:
            return dated
    return None


def _with_date(template: str, day: date) -> str:
    return _TODAY.sub(lambda call: repr(day.strftime(call[2])), template)


def fold_system_prompt(turns: Messages) -> Messages:
    """Move the system prompt, which comes first in `messages`, to the head of the first user turn."""
    system, first, *others = turns
    head, content = f"{text_of(system['content'])}\n\n", first["content"]
    joined = head + content if isinstance(content, str) else [{"type": "text", "text": head}, *content]
    return [{**first, "content": joined}, *others]


def _renderer(processing_class: Any) -> Any:
    has_own = bool(getattr(processing_class, "chat_template", None))
    return processing_class if has_own else text_tokenizer(processing_class)


def _forms(renderer: Any, messages: Messages) -> Iterator[Messages]:
    """Yield the messages in both forms of content, first the one that TRL gives to this kind of renderer."""
    texts = [{**turn, "content": text_of(turn["content"])} if turn.get("content") else turn for turn in messages]
    parts = [{**turn, "content": _parts(turn["content"])} if turn.get("content") else turn for turn in messages]
    yield from (parts, texts) if isinstance(renderer, ProcessorMixin) else (texts, parts)


def _parts(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _lost(rendered: str, messages: Messages) -> str:
    """Return the first text of the messages that is not in what was rendered; empty for none."""
    words = None
    for turn in as_messages(messages):
        content = turn.get("content")
        text = text_of(content).rpartition("</think>")[2].strip()  # templates drop thoughts of former turns
        if turn["role"] in _TOOLS or not text:
            continue
        if isinstance(content, list) and str(content) in rendered:  # the list itself, written as Python writes it
            return text
        if text not in rendered:
            words = normalise(rendered) if words is None else words
            if normalise(text) not in words or not normalise(text):
                return text
    return ""


def _flat(ids: Any) -> list[int]:
    """Return token ids without the batch that a processor puts even one row in."""
    return list(ids[0]) if len(ids) and isinstance(ids[0], list) else list(ids)
