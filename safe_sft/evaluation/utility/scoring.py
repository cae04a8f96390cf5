"""Is an answer to a task right? Pure functions; `metrics/` offers them as modules of `evaluate`."""

import re
from decimal import Decimal
from math import comb

_NUMBER = r"-?\$?\s?\d[\d,]*(?:\.\d+)?"
# Where a final number stands, the surest place first.
_PLACES = (
    rf"####\s*({_NUMBER})",
    rf"\\boxed\{{\s*({_NUMBER})",
    rf"answer\s*(?:is|:|=)\s*\**\s*({_NUMBER})",
    rf"({_NUMBER})",
)


def final_number(text: str) -> Decimal | None:
    """Return the number that an answer ends in: after `####`, in a box, after "the answer is", else the last one.

    Returns:
        The number, or None when there is none.
    """
    for place in _PLACES:
        found = re.findall(place, text, re.IGNORECASE)
        if found:
            return Decimal(re.sub(r"[\s$,]", "", found[-1]))
    return None


def same_final_number(prediction: str, reference: str) -> bool:
    """Return whether both end in the same number, as `18` and `$18.00` do."""
    number = final_number(prediction)
    return number is not None and number == final_number(reference)


def sentiment(text: str) -> int | None:
    """Return 1 for `positive`, 0 for `negative`, by the first of these words; None when there is neither."""
    found = re.search(r"\b(positive|negative)\b", text.lower())
    return None if found is None else int(found[1] == "positive")


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Estimate the chance that one of `k` samples passes (Chen et al. 2021, https://arxiv.org/abs/2107.03374).

    Raises:
        ValueError: when there are fewer samples than `k`.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples of each problem, and there are {samples}.")
    return 1 - comb(samples - passed, k) / comb(samples, k)
