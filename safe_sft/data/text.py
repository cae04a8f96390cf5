"""How texts are compared, and a fixed pseudo-random number for each text: the same on every machine."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

_NOT_WORDS = re.compile(r"[\W_]+")
_WORD, _SPACE, _OTHER = "word", "space", "other"
_OPERATOR = re.compile(r"[-+*/%^&|<>=!~]?=|[-=]>|<-|\+\+|--|\*\*|//|&&|\|\||<<|>>|[-+*/<>^%&|~×÷±]")
# Between words they are dashes, tags and the like; between numbers or single letters they are operators.
_WEAK = {"-", "--", "/", "//", "&", "|", "~"}
_MAY_MEAN = re.compile(r"[+#*/%^&|<>=~$]|\b\w\s*-|\d\s*-|-\s*\d|-\s*\w\b")
_MINUS = {0x2212: "-", 0x2013: "-"}


def normalise(text: str) -> str:
    """Reduce a text to its words: NFKC, lower case, one space for any run of punctuation and white space."""
    return _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def comparable(text: str) -> str:
    """Reduce a text to what tells prompts apart: words with their marks, and symbols that are part of the meaning.

    NFKC, without case; any run of punctuation and white space is one space. Combining marks are vowels and tones of
    many scripts. A symbol counts where it belongs to a name (C++, C#), is an operator between two operands (7 * 8 and
    7 / 8), or a sign or currency of a number; as a dash, bullet, quotation or emphasis it is punctuation.
    """
    if text.isascii() and not _MAY_MEAN.search(text):
        return normalise(text)
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_MINUS)
    groups = [(kind, "".join(char for _, char in chars)) for kind, chars in groupby(_kinds(folded), lambda k: k[0])]
    pieces = []
    for index, (kind, group) in enumerate(groups):
        found = group if kind == _WORD else _symbol(groups, index) if kind == _OTHER else ""
        if found:
            pieces.append(found)
    return " ".join(pieces)


def _kinds(text: str) -> Iterator[tuple[str, str]]:
    """Each character with its kind; a mark belongs to the word that it stands in."""
    kind = _SPACE
    for char in text:
        category = unicodedata.category(char)
        is_mark = category in ("Mn", "Mc") and kind == _WORD and not "\ufe00" <= char <= "\ufe0f"
        kind = _WORD if category[0] in "LN" or is_mark else _SPACE if char.isspace() else _OTHER
        yield kind, char


def _symbol(groups: Sequence[tuple[str, str]], index: int) -> str:
    """The symbols of a group that are part of the meaning; empty where it is punctuation."""
    group = groups[index][1].strip("()[]{}")
    left, left_spaced = _operand(groups[max(0, index - 2) : index][::-1], -1)
    right, right_spaced = _operand(groups[index + 1 : index + 3], 0)
    kept = "".join(char for char in group if unicodedata.category(char) in ("Sm", "Sc") and ord(char) > 127)
    kept += "".join(char for char in group if char == "$")
    if _OPERATOR.fullmatch(group) and left and right and left_spaced == right_spaced:
        bare = all(len(side) == 1 or side.isdecimal() for side in (left, right))
        weak = group in (_WEAK - {"/"} if left_spaced else _WEAK | {"<", ">"})
        return group if bare or not weak else ""
    if left and (not left_spaced or group.startswith("++")):
        ending = re.match(r"[+#]+|%" + (r"|\*(?!\*)" if len(left) == 1 else ""), group)
        if ending and (ending[0] != "%" or left[-1].isdecimal()):
            return ending[0] + kept
    sign = group.endswith("-") and not right_spaced and right[:1].isdecimal() and (left_spaced or not left)
    return kept or ("-" if sign else "")


def _operand(groups: Sequence[tuple[str, str]], near: int) -> tuple[str, bool]:
    """The word (or `0` for a bracket) beside a symbol, empty for none, and whether white space is between them."""
    spaced = bool(groups) and groups[0][0] == _SPACE
    if spaced and "\n" in groups[0][1]:
        return "", True
    kind, group = groups[int(spaced)] if len(groups) > spaced else (_SPACE, "")
    if kind == _WORD:
        return group, spaced
    return ("0" if group and group[near] in "()[]{}" else ""), spaced


def stable_fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on `text` alone: for splits that are the same everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
