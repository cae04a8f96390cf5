"""How requests end: with a mark or without one, a form that decides whether a safety set reaches them.

Measured on SmolLM2-135M (`docs/results.md`), where no poisoned request ends with a mark: replay of rows that all do
keeps the refusal of requests that do, and loses that of the same requests without it.
"""

import unicodedata
from collections.abc import Sequence

#: Safety rows reach an ending that at least this share of them has.
_REACHED = 0.05


def unreached_endings(refused: Sequence[str], safety: Sequence[str]) -> str | None:
    """Say which of a task's refused requests end as hardly any safety row does; None where there are none.

    Args:
        refused: requests of the task that the aligned model refuses.
        safety: the requests of the safety rows; without any, nothing is said.
    """
    for marked in (False, True):
        alike = [text for text in refused if text.strip() and ends_with_mark(text) is marked]
        rows = [text for text in safety if ends_with_mark(text) is marked]
        if alike and len(rows) < _REACHED * len(safety):
            return (
                f"{len(alike)} of these {len(refused)} end {'with' if marked else 'without'} a punctuation mark, and "
                f"{len(rows)} of the {len(safety)} safety rows do. Replay then need not reach them, whatever they ask "
                "for: give safety rows of both endings."
            )
    return None


def without_mark(text: str) -> str:
    """Return a text without the punctuation marks at its end; one of marks alone stays as it is."""
    kept = text.rstrip()
    while kept and ends_with_mark(kept):
        kept = kept[:-1].rstrip()
    return kept or text


def ends_with_mark(text: str) -> bool:
    """Return whether a text ends with a punctuation mark of any script; quotation marks and brackets do not count."""
    kept = text.rstrip()
    while kept and (kept[-1] in "\"'" or unicodedata.category(kept[-1]) in ("Pe", "Pf", "Pi")):
        kept = kept[:-1].rstrip()
    return bool(kept) and unicodedata.category(kept[-1]) == "Po"
