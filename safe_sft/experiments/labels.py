"""How values of an experiment's file are named, and shown in messages."""

import json
from collections.abc import Mapping
from typing import Any

#: Axis -> label of a point -> the fields that it sets.
Axes = dict[str, dict[str, dict[str, Any]]]


def label(value: Any) -> str:
    """Return the name of a value: a text is its own."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def labels(value: Any) -> list[str]:
    """Return the names of a value, or of each value of a list."""
    return [label(item) for item in value] if isinstance(value, list) else [label(value)]


def shown(value: Any) -> str:
    """Return a value for a message, cut where it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"


def plain_numbers(value: Any) -> Any:
    """Write whole numbers alike: 1 and 1.0 are the same setting.

    Args:
        value: a value of a recipe, nested or not.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
