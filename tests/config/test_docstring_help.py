"""What is said of a field is written once, in the docstring of its class, and is its help."""

from argparse import ArgumentParser
from dataclasses import dataclass
from inspect import get_annotations

import pytest

from safe_sft.config import SafeScriptArguments, SafeSFTConfig
from safe_sft.config.docstring_help import docstring_entries, help_from_docstring
from safe_sft.data import SAFETY_SETS


@pytest.mark.parametrize("cls", [SafeSFTConfig, SafeScriptArguments])
def test_the_help_of_every_own_field_is_its_entry(cls):
    entries, own = docstring_entries(cls.__doc__), list(get_annotations(cls))
    assert list(entries) == own
    for name in own:
        shown = cls.__dataclass_fields__[name].metadata["help"]
        assert shown
        assert shown % () == entries[name]


def test_named_safety_sets_are_in_the_help():
    shown = SafeScriptArguments.__dataclass_fields__["safety_dataset_name"].metadata["help"]
    assert all(f"`{name}`" in shown for name in SAFETY_SETS)


@help_from_docstring
@dataclass
class Base:
    """Something.

    Args:
        one: The first: a 95 % interval,
            over two lines.

        two: `x`.

    Returns:
        three: no field.
    """

    one: int = 1
    two: int = 2


@help_from_docstring
@dataclass
class WithoutEntry(Base):
    """As where docstrings are stripped."""

    one: int = 3
    four: int = 4


def test_entries_of_a_docstring():
    assert docstring_entries(Base.__doc__) == {"one": "The first: a 95 % interval, over two lines.", "two": "`x`."}
    assert docstring_entries("") == {}


def test_a_field_without_entry_has_an_empty_help_and_inherited_ones_keep_theirs():
    shown = {name: field.metadata["help"] for name, field in WithoutEntry.__dataclass_fields__.items()}
    assert shown == {"one": "", "two": "`x`.", "four": ""}
    assert Base.__dataclass_fields__["one"].metadata["help"].startswith("The first")


def test_a_percent_sign_is_safe_for_argparse():
    parser = ArgumentParser()
    parser.add_argument("--one", help=Base.__dataclass_fields__["one"].metadata["help"])
    assert "a 95 % interval" in parser.format_help()
