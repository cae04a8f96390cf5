"""Reads files of JSON, none of them deeper than what reads or copies it can bear."""

import json
from pathlib import Path
from typing import Any

from .nesting import require_shallow


def read_json_file(path: Path, remedy: str) -> Any:
    """Read a file of JSON.

    Args:
        path: the file.
        remedy: what to do where it is none, as a sentence.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it is not JSON, not UTF-8, or nested too deeply.
    """
    require_shallow(path, remedy)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also for bytes that are no UTF-8, and numbers of thousands of digits
        raise ValueError(f"'{path}' is not JSON ({error}). {remedy}") from error


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
        found = read_json_file(path, remedy)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"'{path}' is damaged. {remedy}")
    return found
