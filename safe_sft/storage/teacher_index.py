"""Reads the index of a teacher cache, which trainer and Hub both open."""

from pathlib import Path
from typing import Any

from .json_object import read_json_file
from .names import TEACHER_INDEX


def read_teacher_index(folder: Path) -> dict[str, Any]:
    """Return the index of a complete teacher cache: `provenance`, and `parts` with the rows and tokens of each.

    Args:
        folder: folder that has an index.

    Raises:
        ValueError: when the file is none; the message names it.
    """
    path = folder / TEACHER_INDEX
    try:
        index = read_json_file(path, "Delete the folder.")
    except ValueError:
        index = None
    found = index if isinstance(index, dict) else {}
    if not isinstance(found.get("parts"), list) or not isinstance(found.get("provenance"), dict):
        raise ValueError(
            f"'{path}' is no index of a teacher cache. Delete the folder, so that it is built anew, or name another."
        )
    return found
