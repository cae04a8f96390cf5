"""Texts as they are compared, and a number that is a text's own: both the same on every machine."""

import hashlib
import re
import unicodedata

_NOT_WORDS = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """The words alone: NFKC, without case, with one space for any run of punctuation and white space."""
    return _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def stable_fraction(text: str) -> float:
    """A number from 0 to 1 (excluded) that depends on `text` alone: for splits that are the same everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
