"""The numbers that options take: each reads a text, and says what is wrong with it and what it must be."""

import argparse
import math
from contextlib import suppress

_LARGEST_SEED = 2**32 - 1
_MOST_DIGITS = 12
_MOST_SHOWN = 80


def count(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number of at least 1")
    return value


def seed(text: str) -> int:
    """Read a seed, which every random generator takes.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    value = _whole(text)
    if not 0 <= value <= _LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no whole number of at least 0 and at most {_LARGEST_SEED}")
    return value


def share(text: str) -> float:
    """Read a number from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    value = _float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no share: give a number from 0 to 1, such as 0.05")
    return value


def number(text: str) -> float:
    """Read a finite number.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    value = _float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{shown(text)} is no number: give one such as -2.5")
    return value


def real(text: str) -> float:
    """Read a number, whose range what takes it knows.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    try:
        return float(plain(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {shown(text)}; give one such as 0.05") from None


def plain(text: str) -> str:
    """Return a text as it is, unless it is a number in other digits than 0 to 9, or with `_` between them.

    Raises:
        argparse.ArgumentTypeError: for such a number.
    """
    for part in text.split(","):
        if not part.isascii() or "_" in part:
            with suppress(ValueError):
                float(part)
                raise argparse.ArgumentTypeError(f"{shown(part)} is no plain number: write it with the digits 0 to 9")
    return text


def shown(text: str) -> str:
    """Return a text in quotes, cut where it is long."""
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…")


def _whole(text: str) -> int:
    """Read a whole number; what is none, or one that nothing can count to, is -1."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else -1


def _float(text: str) -> float:
    """Read a number; what is none is NaN, which no range holds."""
    try:
        return float(plain(text))
    except (ValueError, argparse.ArgumentTypeError):
        return math.nan
