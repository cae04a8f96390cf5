"""Runs a chat template once on a short conversation: it is a program, which may not end, or may fill the memory."""

import threading
from typing import Any

from .fit import ModelError

#: Seconds that a template may take for two short messages, which is some thousand times what one takes.
SECONDS = 20.0
#: Most characters that it may write around them.
MOST = 1_000_000
_TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]


def require_ending_template(processing_class: Any, name: str, seconds: float = SECONDS) -> None:
    """Refuse a chat template that does not end, or that writes without measure; its errors are found where it is used.

    Args:
        processing_class: a tokenizer or a processor.
        name: folder, file or Hub name that the template is from.
        seconds: how long it may take.

    Raises:
        ModelError: when the template takes longer, or writes more than a million characters for two short messages.
    """
    if not getattr(processing_class, "chat_template", None):
        return
    writes_much: list[bool] = []
    # A daemon, because a thread cannot be stopped: it ends with the process, which the error ends.
    probe = threading.Thread(target=_render, args=(processing_class, writes_much), daemon=True)
    probe.start()
    probe.join(seconds)
    remedy = "Set `chat_template_path` to another template, or take another model; this one is broken or hostile."
    if probe.is_alive():
        raise ModelError(
            f"The chat template of '{name}' did not end within {seconds:g} s on two short messages. {remedy}"
        )
    if True in writes_much:
        raise ModelError(
            f"The chat template of '{name}' writes more than {MOST:,} characters for two short messages. {remedy}"
        )


def _render(processing_class: Any, writes_much: list[bool]) -> None:
    try:
        writes_much.append(len(processing_class.apply_chat_template(_TURNS, tokenize=False)) > MOST)
    except (MemoryError, OverflowError):
        writes_much.append(True)
    except Exception:  # a template may raise what it likes; where it is used, that is said with its reason
        return
