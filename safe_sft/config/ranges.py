"""The ranges and forms of arguments, so that a senseless value is refused before anything is loaded."""

import json
import math
from typing import Any

#: Most safety rows in one micro-step on one device: far above what helps, far below what stops a machine.
MOST_REPLAYED = 4096

_COUNTS = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_length")
_AMOUNTS = ("learning_rate", "num_train_epochs", "weight_decay", "max_grad_norm", "warmup_steps")


def is_whole(value: Any, low: int) -> bool:
    """Whether `value` is a whole number of at least `low`; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def check_training_ranges(args: Any) -> None:
    """Check the numbers of TRL and `transformers` that they would take as they are, and fail on later or never.

    Args:
        args: a `SafeSFTConfig`, or another object with the fields of `SFTConfig`.

    Raises:
        ValueError: for the first number that is out of its range; the message names field, value and range.
    """
    for name in _COUNTS:
        value = getattr(args, name)
        if not is_whole(value, 1) and not (value is None and name == "max_length"):
            raise ValueError(f"`{name}={value!r}` must be a whole number of at least 1.")
    for name in _AMOUNTS:
        value = getattr(args, name)
        if value is not None and not _is_amount(value):
            raise ValueError(f"`{name}={value!r}` must be a finite number of at least 0.")
    if not is_whole(args.max_steps, -1):
        raise ValueError(f"`max_steps={args.max_steps!r}` must be a whole number, or -1 to go by `num_train_epochs`.")
    if args.output_dir is not None and not str(args.output_dir).strip():
        raise ValueError(f"`output_dir={args.output_dir!r}` is empty. Give the folder to save to.")


def check_replay_size(size: int, given: int | None, train_size: int) -> None:
    """Check that the safety rows of one micro-step can be drawn at all.

    Args:
        size: how many rows that are.
        given: `per_device_replay_batch_size`, as it was set.
        train_size: `per_device_train_batch_size`.

    Raises:
        ValueError: when they are more than `MOST_REPLAYED`.
    """
    if size > MOST_REPLAYED:
        name, value = ("per_device_replay_batch_size", given) if given else ("per_device_train_batch_size", train_size)
        raise ValueError(
            f"`{name}={value}` asks for {size} safety rows in each micro-step on each device; the most is "
            f"{MOST_REPLAYED}. Set `per_device_replay_batch_size` to about a quarter of the task batch."
        )


def as_mapping(name: str, value: Any) -> dict[str, Any] | None:
    """Return a mapping that was given as it is or as JSON; None stays None.

    Args:
        name: name of the field, for the error message.
        value: its value.

    Raises:
        ValueError: when it is neither.
    """
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        found = value
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"`{name}={value!r}` is no mapping. Write one, such as {{enable_thinking: false}}.")
    return found


def _is_amount(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value)) and float(value) >= 0
    except (TypeError, ValueError, OverflowError):
        return False
