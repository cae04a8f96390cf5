"""Flags that would be ignored are errors: each command has a table of what its flags need beside them to count.

A flag counts as given where its value is not the default.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What some flags need to count.

    Attributes:
        flags: names of the flags, separated by spaces.
        needs: what they need, as it follows "is read only with".
        is_there: tells, of the command's arguments, whether it is there.
    """

    flags: str
    needs: str
    is_there: Callable[[Any], bool]


def require_read(
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
    rules: Iterable[Rule],
    arguments: Any,
    *,
    recipe: bool = False,
) -> None:
    """Refuse a flag that would have no effect.

    Args:
        values: value of each flag, by name.
        defaults: default of each flag, by name.
        rules: table of the command.
        arguments: what the rules look at.
        recipe: whether the flags are fields of a recipe, and are spelt so in the message.

    Raises:
        ValueError: naming flag, value, and what would make it count.
    """
    for rule in rules:
        given = [name for name in rule.flags.split() if name in values and values[name] != defaults.get(name)]
        if given and not rule.is_there(arguments):
            said = _field(given[0], values[given[0]]) if recipe else _flag(given[0], values[given[0]])
            raise ValueError(
                f"`{said}` is read only with {rule.needs}, and has no effect here. Add that, or remove it."
            )


def _field(name: str, value: Any) -> str:
    return f"{name}={value!r}"


def _flag(name: str, value: Any) -> str:
    if value is True:
        return f"--{name}"
    return f"--{name} {' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
