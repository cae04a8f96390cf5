"""Training arguments with other values, so that those of the caller stay as they are."""

from typing import Any

from ..config.safe_sft_config import SafeSFTConfig


def with_values(args: SafeSFTConfig, **values: Any) -> SafeSFTConfig:
    """A copy of `args` with other values of some fields.

    `dataclasses.replace` would check and convert every value a second time, and `copy.copy` would lose the token.

    Args:
        args: stays as it is.
        values: name of a field -> value, in the form that a `SafeSFTConfig` keeps it in.
    """
    copy = object.__new__(type(args))
    vars(copy).update({**vars(args), **values})
    return copy
