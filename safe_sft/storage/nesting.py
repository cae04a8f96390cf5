"""Refuses JSON that is nested so deeply that what reads or copies it would end the process."""

import re
from pathlib import Path

#: Levels of lists and objects inside each other; a chat with tools and their schemas has about ten.
DEEPEST = 100
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS = bytes(set(range(256)) - _STEP.keys())


def require_shallow(path: Path, remedy: str = "Write it flat, or remove the row.") -> None:
    """Check how deeply a JSON file is nested.

    Args:
        path: a file of JSON, or of one JSON object a line.
        remedy: what to do where it is deeper, as a sentence.

    Raises:
        ValueError: when it is deeper than `DEEPEST`; the message has the line.
    """
    depth = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            row = line.strip()
            if depth == 0 and _is_flat(row):
                continue
            for bracket in _TEXT.sub(b"", row).translate(None, _OTHERS):
                depth = max(0, depth + _STEP[bracket])
                if depth > DEEPEST:
                    raise ValueError(
                        f"'{path}' is nested more than {DEEPEST} deep in line {number}, which nothing that "
                        f"is read here needs. {remedy}"
                    )


def _is_flat(row: bytes) -> bool:
    """Tell whether a line is one object of plain values, as most are."""
    opens, closes = row.count(b"{") + row.count(b"["), row.count(b"}") + row.count(b"]")
    return row.startswith(b"{") and row.endswith(b"}") and opens == closes == 1
