"""The frame of every command: it parses the arguments, does its work, and ends with an exit status."""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from .exits import DEBUG, Parser, ends_on_signal, ends_processes, one_line_errors
from .unread import Rule, require_read

Arguments = TypeVar("Arguments")

_OPTION = re.compile(r"(--[A-Za-z][\w-]*)(=.*)?", re.DOTALL)
#: `transformers` has a `--debug` too, which takes these; without one of them it is ours.
_OF_TRANSFORMERS = ("underflow_overflow", "tpu_metrics_debug")


def command(
    name: str, parse: Callable[[list[str]], Arguments], run: Callable[[Arguments], int], go_on: str = ""
) -> Callable[..., int]:
    """Make the `main` function of a command, for `safe-sft` and for `python -m`.

    Args:
        name: name of the command, such as `train`.
        parse: turns a list of words, with options spelt with underscores, into the arguments.
        run: does the work of the command, and returns the exit status.
        go_on: sentence on how to go on after a signal.

    Returns:
        A function that takes the words after the command (this process's own by default). It returns the exit status,
        or raises `SystemExit` with 2, or with 130 or 143 after a signal.
    """

    @ends_processes
    def main(argv: list[str] | None = None) -> int:
        _say_anything()
        words = _without_debug(underscored(sys.argv[1:] if argv is None else argv))
        with ends_on_signal(name, go_on):
            with one_line_errors(name, TypeError):
                arguments = parse(words)
            with one_line_errors(name):
                return run(arguments)

    return main


def _say_anything() -> None:
    """Let a character that the terminal's encoding lacks be shown as an escape, where it would end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def options(
    name: str, text: str | None, add_arguments: Callable[[argparse.ArgumentParser], None], rules: Sequence[Rule] = ()
) -> Callable[[list[str]], argparse.Namespace]:
    """Make the `parse` function of a command that takes only options.

    Args:
        name: name of the command, such as `merge`.
        text: what the command is for; the first words of its help.
        add_arguments: declares the options; it imports nothing heavy, so that `--help` is quick.
        rules: what some options need beside them to count.
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
        found = parser.parse_args(words)
        require_read(vars(found), {a.dest: a.default for a in parser._actions}, rules, found)
        return found

    return parse


def underscored(argv: Sequence[str]) -> list[str]:
    """Spell `--some-flag=x` as `--some_flag=x`; values, and all that follows a bare `--`, stay as they are.

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
    """Return the words without `--debug`, and note its presence for this process and those that it starts."""
    for place, word in enumerate(words):
        if word == "--debug" and [*words, ""][place + 1] not in _OF_TRANSFORMERS:
            os.environ[DEBUG] = "1"
            return [*words[:place], *words[place + 1 :]]
    return words
