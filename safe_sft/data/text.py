"""How texts are compared, and a fixed pseudo-random number for each text: the same on every machine."""

import hashlib
import re
import unicodedata

_NOT_WORDS = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Reduce a text to its words: NFKC, lower case, one space for any run of punctuation and white space."""
    return _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def stable_fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on `text` alone: for splits that are the same everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
