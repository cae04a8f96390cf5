"""The types of a configuration's fields: a value of another type is an error that names field, value and type."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache
from math import isfinite
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

#: Values that YAML makes; an object of another type is taken where a mapping is wanted, as from Python.
_PLAIN = (str, bytes, Real, list, tuple, set, NoneType)
_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
_TRUTH = " YAML reads a bare yes, no, on and off as a truth value: put the word in quotes."


def check_types(config: Any, cls: type, but: frozenset[str] = frozenset()) -> None:
    """Check that every field of a dataclass holds a value of its type.

    Args:
        config: a `cls`.
        cls: the dataclass whose fields are looked at; those of a class derived from it are not.
        but: names of fields that are left out.

    Raises:
        ValueError: for the first field that does not; the message names field, value and type.
    """
    hints = _hints(cls)
    for field in fields(cls):
        if field.name not in but and (fault := type_fault(getattr(config, field.name), hints[field.name])):
            raise ValueError(f"`{field.name}={_shown(getattr(config, field.name))}` {fault}")


def check_value(name: str, value: Any, cls: type) -> None:
    """Check a value of a recipe against the field that it is for; a text, which the parser reads, is left to it.

    Args:
        name: name of the field.
        value: its value.
        cls: the dataclass that has the field.

    Raises:
        ValueError: when it is of another type; the message names field, value and type.
    """
    if not isinstance(value, str) and (fault := type_fault(value, _hints(cls)[name])):
        raise ValueError(f"`{name}={_shown(value)}` {fault}")


@contextmanager
def naming_fields(config: Any, cls: type) -> Iterator[None]:
    """Let what a library says of its fields name them: where it names none, all that differ from their default.

    Args:
        config: a `cls`.
        cls: the dataclass whose fields the library looks at.

    Raises:
        ValueError: for whatever is raised inside, but for a package that is missing.
    """
    before = dict(vars(config))
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # a library raises what it happens to meet in a value
        said = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, ValueError) and any(field.name in said for field in fields(cls)):
            raise
        changed = [f for f in fields(cls) if f.default is not MISSING and before[f.name] != f.default]
        given = ", ".join(f"`{field.name}={_shown(before[field.name])}`" for field in changed)
        raise ValueError(f"One of {given} cannot be used: {said}. Correct it, or leave it out.") from error


def type_fault(value: Any, hint: Any) -> str:
    """Say of what type a value must be; empty where it is.

    Args:
        value: any value.
        hint: type of a field, as annotated; of `Enum | str`, only the members' values are accepted.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
    if any(_fits(value, kind) for kind in enums or kinds):
        return ""
    words = " or ".join(dict.fromkeys(_in_words(kind) for kind in enums or kinds if kind is not NoneType))
    return f"must be {words}.{_TRUTH if isinstance(value, bool) and str in kinds else ''}"


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is Any or origin is Literal:
        return origin is Any or any(value is choice for choice in get_args(kind))
    if origin is int or origin is float:
        is_number = isinstance(value, Integral if origin is int else Real) and not isinstance(value, bool)
        return is_number and _is_finite(value)
    if origin is str:
        return isinstance(value, (str, os.PathLike))
    if origin is list:
        (item,) = get_args(kind) or (Any,)
        return isinstance(value, (list, tuple)) and all(_fits(part, item) for part in value)
    if origin is dict:
        return isinstance(value, Mapping) or not isinstance(value, _PLAIN)
    if issubclass(origin, Enum):
        return isinstance(value, origin) or (isinstance(value, str) and value in [m.value for m in origin])
    return isinstance(value, origin)


def _is_finite(value: Any) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # of a whole number that no float holds
        return False


def _in_words(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return ", ".join(map(repr, get_args(kind)))
    if origin is list or origin is dict:
        return "a list of texts" if get_args(kind) == (str,) else "a list" if origin is list else "a mapping"
    if isinstance(origin, type) and issubclass(origin, Enum):
        return f"one of: {', '.join(str(member.value) for member in origin)}"
    return _WORDS.get(origin) or f"a {getattr(origin, '__name__', origin)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)
