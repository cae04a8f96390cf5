"""Whether a fine-tune takes more than a third of its base model's training compute.

The European Commission's guidelines on general-purpose AI models (July 2025) take who modifies a model for the
provider of a new one where the modification takes more than a third of the operations that the original's training
took. Where these are not known, a third of the threshold counts from which a model is taken for a general-purpose one,
10^23, or, for an original with systemic risk, of that one's, 10^25.
"""

from typing import Any

#: Operations of training from which a model is taken for a general-purpose one, and for one with systemic risk.
GENERAL_PURPOSE, SYSTEMIC_RISK = 1e23, 1e25


def compare_with_third(flop: float | None, base: float | None) -> dict[str, Any]:
    """Compare the operations of a run with a third of those of its base model's training.

    Args:
        flop: operations of the run; None where they could not be counted.
        base: operations of the base model's training; None where they are not known.

    Returns:
        Plain values: the share of the base's operations, the limits that were compared with, and a sentence.
    """
    if base is None:
        limits = {"of a general-purpose model": GENERAL_PURPOSE / 3, "of one with systemic risk": SYSTEMIC_RISK / 3}
    else:
        limits = {"of the base model": base / 3}
    compared = [
        {"third": name, "limit_flop": limit, "exceeds": None if flop is None else flop > limit}
        for name, limit in limits.items()
    ]
    return {
        "base_training_flop": base,
        "share_of_base": None if flop is None or base is None else flop / base,
        "compared": compared,
        "verdict": _verdict(flop, base),
    }


def _verdict(flop: float | None, base: float | None) -> str:
    if flop is None:
        return "not known: the operations of the run could not be counted"
    if base is not None:
        above = flop > base / 3
        small = "" if base > GENERAL_PURPOSE else "; the base's are not above 1e23, that of a general-purpose model"
        return f"{'more' if above else 'not more'} than a third of the base model's training operations{small}"
    if flop <= GENERAL_PURPOSE / 3:
        return "the base model's training operations are not known: not more than a third of 1e23, nor of 1e25"
    if flop <= SYSTEMIC_RISK / 3:
        return "the base model's training operations are not known: more than a third of 1e23, not of 1e25"
    return "the base model's training operations are not known: more than a third of 1e23, and of 1e25"
