"""Copies of training arguments with other values, so that the caller's own stay as they are."""

from typing import Any

from ..config.safe_sft_config import SafeSFTConfig


def with_values(args: SafeSFTConfig, **values: Any) -> SafeSFTConfig:
    """Return a copy of `args` with other values of some fields.

    `dataclasses.replace` would check and convert every value a second time, and `copy.copy` would lose the token.

    Args:
        args: the arguments to copy; they stay as they are.
        values: new value of each field, by name, in the form that a `SafeSFTConfig` keeps it in.
    """
    copy = object.__new__(type(args))
    vars(copy).update({**vars(args), **values})
    return copy
