"""Values as evidence may hold them: no path of this machine, no secret, nothing but what JSON knows."""

import math
import re
from collections.abc import Mapping
from typing import Any

from ..storage.secrets import without_secrets

_DRIVE = r"(?:~[^/\\\s]*|[A-Za-z]:)?"
#: The whole text is a path from the root of the disk or from somebody's home.
_PATH = re.compile(rf"(?:file://)?{_DRIVE}[/\\](?![/]).*|~|\\\\.*", re.DOTALL)
#: Such a path inside a text, as in `gsm8k:/data/gsm8k.jsonl`.
_INSIDE = re.compile(rf"(?:(?<=[\s=:,'\"(\[])|file://){_DRIVE}/(?!/)[^\s,'\")\]]*")


def portable(value: Any) -> Any:
    """Return a plain value without secrets, in which a path of this machine is its last part.

    Args:
        value: mappings, lists, texts and numbers, nested; anything else becomes its text.

    Example:
        >>> portable({"a": "/home/me/task.jsonl", "b": "gsm8k:/data/x.jsonl", "c": "https://hf.co/a/b", "token": "x"})
        {'a': 'task.jsonl', 'b': 'gsm8k:x.jsonl', 'c': 'https://hf.co/a/b'}
    """
    return _portable(without_secrets(value))


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_text(str(key)): _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_portable(item) for item in value]
        return sorted(items, key=str) if isinstance(value, (set, frozenset)) else items
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float)) else _text(str(value))


def _text(text: str) -> str:
    if _PATH.fullmatch(text) and "\n" not in text:
        return _last(text)
    return _INSIDE.sub(lambda found: _last(found[0]), text)


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "folder"
