"""The ranges and forms of arguments, so that a senseless value is refused before anything is loaded."""

import json
import math
from typing import Any

from transformers.training_args import trainer_log_levels

#: Most safety rows in one micro-step on one device: far above what helps, far below what stops a machine.
MOST_REPLAYED = 4096

_COUNTS = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_length")
_AMOUNTS = (
    *("learning_rate", "num_train_epochs", "weight_decay", "max_grad_norm", "warmup_steps", "adam_epsilon"),
    *("logging_steps", "save_steps", "eval_steps", "eval_delay", "neftune_noise_alpha", "router_aux_loss_coef"),
)
#: Shares that are below 1.
_SHARES = ("adam_beta1", "adam_beta2", "label_smoothing_factor")
#: Whole numbers with their least value; None and texts such as `auto` are left as they are.
_LEAST = {
    **dict.fromkeys(("seed", "data_seed", "dataloader_num_workers"), 0),
    **dict.fromkeys(("dataset_num_proc", "eval_accumulation_steps", "dataloader_prefetch_factor"), 1),
    **dict.fromkeys(("pad_to_multiple_of", "torch_empty_cache_steps"), 1),
}
_LARGEST_SEED = 2**32 - 1
#: At a β of 100, the weight of a token is 0 or 2 as soon as its probability has changed by a tenth.
_LARGEST_BETA = 100


def is_whole(value: Any, low: int) -> bool:
    """Whether `value` is a whole number of at least `low`; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def check_whole(name: str, value: Any) -> None:
    """Check a field that is a whole number of at least 1, or None.

    Args:
        name: name of the field.
        value: its value.

    Raises:
        ValueError: when it is something else.
    """
    if value is not None and not is_whole(value, 1):
        raise ValueError(f"`{name}={value!r}` must be a whole number of at least 1.")


def check_between(name: str, value: Any, low: float, high: float) -> None:
    """Check a field that is a number within a range.

    Args:
        name: name of the field.
        value: its value.
        low: least value.
        high: largest value.

    Raises:
        ValueError: when it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"`{name}={value!r}` must be a number from {low:g} to {high:g}.")


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
    _check_whole_numbers(args)
    for name in _SHARES:
        value = getattr(args, name)
        if not _is_amount(value) or value >= 1:
            raise ValueError(f"`{name}={value!r}` must be a number from 0 to below 1.")
    for name in ("log_level", "log_level_replica"):
        if (level := getattr(args, name)) not in [*trainer_log_levels]:
            raise ValueError(f"`{name}={level!r}` is unknown. Choose from: {', '.join(trainer_log_levels)}.")
    if args.save_strategy == "steps" and not args.save_steps:
        raise ValueError('`save_steps=0` saves nothing. Raise it, or set `save_strategy: "no"`.')
    if not is_whole(args.max_steps, -1):
        raise ValueError(f"`max_steps={args.max_steps!r}` must be a whole number, or -1 to go by `num_train_epochs`.")
    if args.output_dir is not None and not str(args.output_dir).strip():
        raise ValueError(f"`output_dir={args.output_dir!r}` is empty. Give the folder to save to.")


def _check_whole_numbers(args: Any) -> None:
    for name, low in _LEAST.items():
        value = getattr(args, name)
        if isinstance(value, (int, float)) and not is_whole(value, low):
            raise ValueError(f"`{name}={value!r}` must be a whole number of at least {low}.")
    for name in ("seed", "data_seed"):
        value = getattr(args, name)
        if is_whole(value, _LARGEST_SEED + 1):
            raise ValueError(f"`{name}={value!r}` must be at most {_LARGEST_SEED}.")


def check_adapter_ranges(model: Any) -> None:
    """Check the numbers of a new LoRA: an alpha of 0, for one, would train an adapter that changes nothing.

    Args:
        model: a `ModelConfig`.

    Raises:
        ValueError: for the first number that is out of its range; the message names field, value and range.
    """
    for name in ("lora_r", "lora_alpha"):
        value = getattr(model, name)
        if not is_whole(value, 1):
            raise ValueError(f"`{name}={value!r}` must be a whole number of at least 1.")
    if not _is_amount(model.lora_dropout) or model.lora_dropout >= 1:
        raise ValueError(f"`lora_dropout={model.lora_dropout!r}` must be a number from 0 to below 1.")


def check_replay_size(ratio: float, train_size: int) -> None:
    """Check that the safety rows of one micro-step can be drawn at all.

    Args:
        ratio: `replay_ratio`.
        train_size: `per_device_train_batch_size`.

    Raises:
        ValueError: when they are more than `MOST_REPLAYED`.
    """
    if ratio * train_size > MOST_REPLAYED:
        raise ValueError(
            f"`replay_ratio={ratio}` of `per_device_train_batch_size={train_size}` asks for {ratio * train_size:.0f} "
            f"safety rows in each micro-step on each device; the most is {MOST_REPLAYED}. Lower one of them."
        )


def check_betas(betas: Any) -> None:
    """Check how tightly the tokens of an answer are held.

    Args:
        betas: `csft_betas`; None for the paper's.

    Raises:
        ValueError: when it is no list of numbers, or one is out of its range.
    """
    is_list = isinstance(betas, (list, tuple)) and len(betas) > 0
    if betas is not None and not (is_list and all(_is_amount(beta) and beta <= _LARGEST_BETA for beta in betas)):
        raise ValueError(
            f"`csft_betas={betas!r}` must be a list of numbers from 0 to {_LARGEST_BETA}, one for each token at the "
            "beginning of an answer and the last for all others, such as [0.5, 2, 2, 2, 2, 0.1]."
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
    except (json.JSONDecodeError, RecursionError):
        found = value
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"`{name}={value!r}` is no mapping. Write one, such as {{enable_thinking: false}}.")
    return found


def _is_amount(value: Any) -> bool:
    if isinstance(value, (bool, str)):
        return False
    try:
        return math.isfinite(float(value)) and float(value) >= 0
    except (TypeError, ValueError, OverflowError):
        return False
