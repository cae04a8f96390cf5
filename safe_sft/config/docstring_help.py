"""Help texts from docstrings: the help of a field is its entry in the docstring of its class."""

import re
from dataclasses import fields
from inspect import cleandoc, get_annotations
from types import MappingProxyType
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type[Any])
_ENTRY = re.compile(r" {4}(\w+): +(\S.*)")


def help_from_docstring(cls: _Class) -> _Class:
    """Decorate a dataclass: each field that it declares itself gets its help from the docstring.

    The help is for argparse, so `%` is doubled. Where docstrings are stripped (`python -OO`), the help is empty.
    """
    entries = docstring_entries(cls.__doc__ or "")
    for field in fields(cls):
        if field.name in get_annotations(cls):
            help_text = entries.get(field.name, "").replace("%", "%%")
            field.metadata = MappingProxyType({**field.metadata, "help": help_text})
    return cls


def docstring_entries(text: str) -> dict[str, str]:
    """Return the entries of the section `Args` of a docstring: name -> description, in one line.

    Args:
        text: a docstring.
    """
    entries: dict[str, str] = {}
    for line in cleandoc(text).partition("Args:\n")[2].splitlines():
        if match := _ENTRY.fullmatch(line):
            entries[match[1]] = match[2]
        elif entries and line.startswith(" " * 8):
            name = next(reversed(entries))
            entries[name] += f" {line.strip()}"
        elif line.strip():
            break
    return entries
