"""Evenly spread subsets of rows."""

from collections.abc import Sequence
from typing import TypeVar

Row = TypeVar("Row")


def evenly_spread(rows: Sequence[Row], size: int | None) -> list[Row]:
    """Return at most `size` of `rows`, in order, evenly spread, the same ones each time; all of them for None.

    Args:
        rows: a list, or a `Dataset`.
        size: most rows to return, at least 1.
    """
    count = len(rows) if size is None else min(size, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]
