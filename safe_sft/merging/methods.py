"""The merges by name: the number that each takes, and the models that it needs beside aligned and tuned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: The models that some merges need, by the name of their argument, and what to say of them.
SIDES = {
    "base": "the model before alignment",
    "safe": "a model or adapter that was tuned for safety alone",
}


@dataclass(frozen=True)
class MergeMethod:
    """What a merge takes.

    Attributes:
        tells: what its number says, for help and errors.
        number: which number may differ by tensor name, and is swept: the merge weight, or a threshold on a cosine.
        interval: the values that it may have; None for any finite one.
        default: its default; None where it has to be given.
        threshold: default of the threshold, where that is a second number; None where there is none.
        needs: names in `SIDES` of the models that it needs.
        takes_several: whether more than one tuned model can be given.
    """

    tells: str
    number: Literal["weight", "threshold"] = "weight"
    interval: tuple[float, float] | None = (0.0, 1.0)
    default: float | None = None
    threshold: float | None = None
    needs: tuple[str, ...] = ()
    takes_several: bool = False


#: A cosine below which an update counts as one that leaves alignment: SafeMERGE's.
THRESHOLD = 0.35

MERGE_METHODS: dict[str, MergeMethod] = {
    "linear": MergeMethod("0 is aligned, 1 is tuned"),
    "slerp": MergeMethod("0 is aligned, 1 is tuned"),
    "task_arithmetic": MergeMethod("0 is aligned, 1 is tuned", interval=None),
    "magmax": MergeMethod(
        "0 is the model before alignment, 1 takes the changes as they are",
        interval=None,
        default=1.0,
        needs=("base",),
        takes_several=True,
    ),
    "safe_lora": MergeMethod(
        "updates whose cosine is at most this are projected: 0 keeps nearly all, 1 projects all",
        number="threshold",
        default=THRESHOLD,
        needs=("base",),
    ),
    "safemerge": MergeMethod(
        "share of the tuned model where it is merged: 0 is the safe one, 1 is tuned",
        default=0.8,
        threshold=THRESHOLD,
        needs=("base", "safe"),
    ),
}


def merge_method(name: str) -> MergeMethod:
    """Return what a merge takes, by its name.

    Raises:
        ValueError: for another name.
    """
    if name not in MERGE_METHODS:
        raise ValueError(f"Merge method {name!r} is unknown. Choose from: {', '.join(MERGE_METHODS)}.")
    return MERGE_METHODS[name]


def own_number(name: str, weight: Any, threshold: Any, prefix: str = "") -> tuple[Any, float | None]:
    """Tell the number that a merge sweeps from the one that it holds fixed.

    Args:
        name: one of `MERGE_METHODS`.
        weight: the merge weight as it was given; None where it was not.
        threshold: the threshold as it was given; None where it was not.
        prefix: what the names of these two begin with, for error messages.

    Returns:
        The number that may differ by tensor name, and the threshold of a merge that takes both (else None).

    Raises:
        ValueError: when the number is missing, or one is given that the merge does not read.
    """
    method = merge_method(name)
    if method.number == "threshold":
        _refuse_unread(name, f"{prefix}weight", weight, f"Give `{prefix}threshold` alone.")
        return method.default if threshold is None else threshold, None
    if weight is None and method.default is None:
        raise ValueError(f"`{name}` needs a merge weight, and there is none. Give one, such as 0.6.")
    if method.threshold is None:
        _refuse_unread(name, f"{prefix}threshold", threshold, "Remove it; safe_lora and safemerge have one.")
        return method.default if weight is None else weight, None
    return method.default if weight is None else weight, _cosine(method.threshold if threshold is None else threshold)


def check_sides(name: str, sides: Mapping[str, object], tuned: int = 1, prefix: str = "") -> None:
    """Check that a merge has the models that it needs, and no others.

    Args:
        name: one of `MERGE_METHODS`.
        sides: what was given for each name in `SIDES`; None where nothing was.
        tuned: number of tuned models.
        prefix: what the names of the sides begin with, for error messages.

    Raises:
        ValueError: naming the model that is missing, or that the merge does not read.
    """
    method = merge_method(name)
    for side, what in SIDES.items():
        if side in method.needs and sides.get(side) is None:
            raise ValueError(f"`{name}` needs {what}, and `{prefix}{side}` is not given. Add a folder or a Hub name.")
        if side not in method.needs:
            readers = ", ".join(n for n, other in MERGE_METHODS.items() if side in other.needs)
            _refuse_unread(name, f"{prefix}{side}", sides.get(side), f"Remove it; {readers} read it.")
    if tuned != 1 and not (method.takes_several and tuned):
        several = ", ".join(n for n, other in MERGE_METHODS.items() if other.takes_several)
        raise ValueError(f"`{name}` merges one tuned model, and {tuned} are given. Give one, or merge with {several}.")


def _cosine(value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise ValueError(f"`threshold={value!r}` is no cosine from 0 to 1. Write one such as {THRESHOLD}.")
    return number


def _refuse_unread(method: str, argument: str, value: object, remedy: str) -> None:
    if value is not None:
        raise ValueError(f"`{argument}={value!r}` is not read by `{method}`. {remedy}")
