"""A JSON object that a command wrote, and reads when it goes on."""

import json
from pathlib import Path
from typing import Any


def read_json_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: the file.
        remedy: what to do where it is damaged, as a sentence.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it holds no object, or an empty one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"'{path}' is damaged. {remedy}")
    return found
