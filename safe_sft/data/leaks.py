"""Checks that the training rows, the safety set and the evaluation prompts have no prompt in common."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from .safety_rows import Messages
from .text import comparable, normalise


class LeakError(ValueError):
    """A prompt is in two sets that must be disjoint."""


def compared_text(prompt: str | Messages) -> str:
    """Return the text that prompts are compared by: of chat messages, all but the system's."""
    if isinstance(prompt, str):
        return prompt
    return " ".join(_text(turn["content"]) for turn in prompt if turn["role"] != "system")


def _text(content: Any) -> str:
    """Return the text of a message, which may have several parts, some of them images."""
    if isinstance(content, list):
        return " ".join(part.get("text") or "" for part in content)
    return str(content or "")


def check_leaks(sets: Mapping[str, Iterable[str | Messages]]) -> None:
    """Check that no prompt is in two sets.

    Args:
        sets: name of each set, as the user knows it -> its prompts.

    Raises:
        LeakError: with the count, an example and a remedy.
    """
    texts: dict[str, dict[str, list[str]]] = {}
    for name, prompts in sets.items():
        by_words: dict[str, list[str]] = {}
        for text in map(compared_text, prompts):
            by_words.setdefault(normalise(text), []).append(text)
        by_words.pop("", None)  # nothing but punctuation: no text to compare
        texts[name] = by_words
    for first, second in combinations(texts, 2):
        shared = _shared(texts[first], texts[second])
        if shared:
            count = sum(len(set(map(comparable, found))) for found in texts[second].values())
            raise LeakError(
                f"{len(shared)} of the {count} prompts of {second} are also in {first}, such as "
                f"{shared[min(shared)][:80]!r}. What is measured or replayed must not be trained on otherwise: remove "
                "these rows from one of the two, or choose another set."
            )


def _shared(first: Mapping[str, list[str]], second: Mapping[str, list[str]]) -> dict[str, str]:
    """Find the texts of `first` that are in `second` as well; those of the same words alone are looked at closely.

    Args:
        first: words of the texts -> the texts.
        second: the same of the other set.

    Returns:
        What the texts are compared by -> one of them.
    """
    found: dict[str, str] = {}
    for words in first.keys() & second.keys():
        others = {comparable(text) for text in second[words]}
        found |= {key: text for text in first[words] if (key := comparable(text)) in others}
    return found
