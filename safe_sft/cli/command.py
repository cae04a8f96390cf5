"""What a command is to `safe-sft`: arguments are parsed, something is done with them, and the end is a status."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from .exits import DEBUG, Parser, ends_processes, one_line_errors

Arguments = TypeVar("Arguments")

_OPTION = re.compile(r"(--[A-Za-z][\w-]*)(=.*)?", re.DOTALL)
#: `transformers` has a `--debug` too, which takes these; without one of them it is ours.
_OF_TRANSFORMERS = ("underflow_overflow", "tpu_metrics_debug")


def command(name: str, parse: Callable[[list[str]], Arguments], run: Callable[[Arguments], int]) -> Callable[..., int]:
    """The `main` of a command, for `safe-sft` and for `python -m`.

    Args:
        name: such as `train`.
        parse: makes the arguments of a list of words; options are spelt with underscores there.
        run: does what the command is for, and returns the exit status.

    Returns:
        A function of the words after the command, those of this process by default; it returns the exit status, or
        raises `SystemExit` with 2.
    """

    @ends_processes
    def main(argv: list[str] | None = None) -> int:
        words = _without_debug(underscored(sys.argv[1:] if argv is None else argv))
        with one_line_errors(name, TypeError):
            arguments = parse(words)
        with one_line_errors(name):
            return run(arguments)

    return main


def options(
    name: str, text: str | None, add_arguments: Callable[[argparse.ArgumentParser], None]
) -> Callable[[list[str]], argparse.Namespace]:
    """The `parse` of a command that takes options alone.

    Args:
        name: such as `merge`.
        text: what it is for, which opens its help.
        add_arguments: declares the options; it imports nothing heavy, so that `--help` is quick.
    """

    def parse(words: list[str]) -> argparse.Namespace:
        parser = Parser(
            prog=f"safe-sft {name}",
            description=text,
            epilog=f"--debug, or {DEBUG}=1, shows where an error came from.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_arguments(parser)
        return parser.parse_args(words)

    return parse


def underscored(argv: Sequence[str]) -> list[str]:
    """`--some-flag=x` as `--some_flag=x`; values, and all that follows a bare `--`, stay as they are.

    Example:
        >>> underscored(["--max-asr", "0.1", "--name=a-b", "-0-5", "--", "--x-y"])
        ['--max_asr', '0.1', '--name=a-b', '-0-5', '--', '--x-y']
    """
    end = argv.index("--") if "--" in argv else len(argv)
    return [*map(_underscored, argv[:end]), *argv[end:]]


def _underscored(word: str) -> str:
    found = _OPTION.fullmatch(word)
    return word if found is None else f"--{found[1][2:].replace('-', '_')}{found[2] or ''}"


def _without_debug(words: list[str]) -> list[str]:
    """The words without `--debug`, which is for this process and those that it starts."""
    for place, word in enumerate(words):
        if word == "--debug" and [*words, ""][place + 1] not in _OF_TRANSFORMERS:
            os.environ[DEBUG] = "1"
            return [*words[:place], *words[place + 1 :]]
    return words
