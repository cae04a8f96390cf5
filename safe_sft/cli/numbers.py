"""The numbers that options take: each reads a text, and says what is wrong with it and what it must be."""

import argparse
import math

_LARGEST_SEED = 2**32 - 1


def count(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    """Read a seed, which every random generator takes.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    if not (text.isascii() and text.isdigit()) or int(text) > _LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0 and at most {_LARGEST_SEED}")
    return int(text)


def share(text: str) -> float:
    """Read a number from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    value = _float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: give a number from 0 to 1, such as 0.05")
    return value


def number(text: str) -> float:
    """Read a finite number.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    value = _float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number: give one such as -2.5")
    return value


def _float(text: str) -> float:
    """Read a number; what is none is NaN, which no range holds."""
    try:
        return float(text)
    except ValueError:
        return math.nan
