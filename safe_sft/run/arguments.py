"""Copies of training arguments with other values, so that the caller's own stay as they are."""

from typing import Any

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments


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


def with_task_template(script: SafeScriptArguments, args: SafeSFTConfig) -> SafeSFTConfig:
    """Return `args` with the format of the task that the recipe trains, where safety rows are to wear one.

    Args:
        script: the run's `SafeScriptArguments`.
        args: the run's `SafeSFTConfig`; a format of its own wins.

    Raises:
        ValueError: when safety rows are to wear a format, and none is known.
    """
    if args.safety_rows_in_task_format and args.safety_task_template is None and script.task is not None:
        args = with_values(args, safety_task_template=script.task)
    _ = args.task_format
    return args
