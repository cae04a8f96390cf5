"""The settings of `merge_after_training`: which merge reads which."""

from typing import Any

from ..merging.methods import check_sides, own_number

#: The merges that can follow training: `task_arithmetic` within the weights allowed here is `linear`.
MERGES = ("linear", "slerp", "magmax", "safe_lora", "safemerge")
MERGE_FIELDS = ("merge_weight", "merge_base", "merge_safe", "merge_threshold")
#: The weight of a merge that has no default of its own.
MERGE_WEIGHT = 0.5


def check_merge(config: Any) -> None:
    """Check that the merge after training has what it needs, and that nothing is set that it does not read.

    Args:
        config: a `SafeSFTConfig`.

    Raises:
        ValueError: naming the setting.
    """
    method = config.merge_after_training
    if method is None:
        given = next((name for name in MERGE_FIELDS if getattr(config, name) is not None), None)
        if given is not None:
            raise ValueError(
                f"`{given}={getattr(config, given)!r}` has no effect. Set `merge_after_training` to one of: "
                f"{', '.join(MERGES)}."
            )
        return
    check_sides(method, {"base": config.merge_base, "safe": config.merge_safe}, prefix="merge_")
    merge_numbers(config)


def merge_numbers(config: Any) -> dict[str, Any]:
    """Return weight and threshold of the merge after training, as `merge` takes them.

    Args:
        config: a `SafeSFTConfig` that merges.

    Raises:
        ValueError: for a number that the merge does not read.
    """
    method, weight = config.merge_after_training, config.merge_weight
    if weight is None and method in ("linear", "slerp"):
        weight = MERGE_WEIGHT
    own_number(method, weight, config.merge_threshold, "merge_")
    return {"weight": weight, "threshold": config.merge_threshold}
