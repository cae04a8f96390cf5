"""Checks that the training rows, the safety set and the evaluation prompts have no prompt in common."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from .safety_rows import Messages
from .text import normalise


class LeakError(ValueError):
    """A prompt is in two sets that must be disjoint."""


def prompt_key(prompt: str | Messages) -> str:
    """Return what prompts are compared by: the normalised text, of chat messages all but the system's."""
    if isinstance(prompt, str):
        return normalise(prompt)
    return normalise(" ".join(_text(turn["content"]) for turn in prompt if turn["role"] != "system"))


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
    keys: dict[str, dict[str, Any]] = {}
    for name, prompts in sets.items():
        keyed = {prompt_key(prompt): prompt for prompt in prompts}
        keyed.pop("", None)  # nothing but punctuation: no text to compare
        keys[name] = keyed
    for first, second in combinations(keys, 2):
        shared = keys[first].keys() & keys[second].keys()
        if shared:
            example = keys[first][min(shared)]
            text = example if isinstance(example, str) else _text(example[-1]["content"])
            raise LeakError(
                f"{len(shared)} of the {len(keys[second])} prompts of {second} are also in {first}, such as "
                f"{text[:80]!r}. What is measured or replayed must not be trained on otherwise: remove these rows "
                "from one of the two, or choose another set."
            )
