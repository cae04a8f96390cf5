"""Turns a request into what a model is shown: chat template, messages, and a forced beginning of the answer."""

from typing import Any

from ...data.forms import text_of
from ...data.rendering import TemplateOptions, has_template, text_tokenizer
from ...data.tokenization import prompt_token_ids
from .suite import Case


def case_token_ids(processing_class: Any, case: Case, options: TemplateOptions | None = None) -> list[int]:
    """Return the token ids of a request up to where its answer goes on, `prefill` included.

    Args:
        processing_class: the model's tokenizer or processor. Without a chat template, messages become paragraphs of
            one text.
        case: the request.
        options: further variables of the chat template; the request's own win.

    Raises:
        ValueError: when the chat template refuses the request or drops its text.
    """
    if not has_template(processing_class):
        paragraphs = [text_of(turn["content"]) for turn in case.turns] + ([case.prefill] if case.prefill else [])
        return prompt_token_ids(processing_class, "\n\n".join(paragraphs))
    ids = prompt_token_ids(processing_class, case.turns, {**(options or {}), **(case.options or {})})
    if not case.prefill:
        return ids
    return ids + list(text_tokenizer(processing_class)(case.prefill, add_special_tokens=False)["input_ids"])
