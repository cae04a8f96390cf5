"""How a command ends: its status, what is wrong in one line, and the process group that it may have started.

| status | meaning |
|---|---|
| 0 | done |
| 1 | a bound or a gate was not kept |
| 2 | wrong input, or something that the command needs is missing |
| 130 | stopped by SIGINT (Ctrl-C) |
| 143 | stopped by SIGTERM |
"""

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from typing import NoReturn

from ..storage.disk import disk_problem
from ..storage.secrets import clean_text
from ..storage.terminal import plain

#: Environment variable that, set to 1, shows where an error came from, as `--debug` does.
DEBUG = "SAFE_SFT_DEBUG"

#: Packages whose errors say value, reason and remedy, or what is wrong with a file or the network. They are given by
#: name, since none of them is imported before it is needed.
_SPEAKING = {"safe_sft", "yaml", "jinja2", "safetensors", "huggingface_hub", "httpx", "requests"}
#: Characters of a message; of a longer one, what is between its first and its last words is left out.
_LONGEST = 4000


class Status(IntEnum):
    """The exit status of a command."""

    DONE = 0
    NOT_KEPT = 1
    WRONG = 2
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit with status 2."""
        self.exit(Status.WRONG, f"{self.prog}: error: {_one_line(message)}\n")


def say_error(command: str, error: BaseException | str) -> None:
    """Print what is wrong, in one line.

    Args:
        command: name of the command, such as `train`.
        error: the exception that was raised, or a sentence.
    """
    _end_progress_bars()
    text = _one_line(error) or type(error).__name__
    print(f"safe-sft {command}: error: {text}", file=sys.stderr)


def _one_line(text: object) -> str:
    """Return a text in one line of bounded length, without secrets and control characters."""
    line = plain(clean_text(" ".join(str(text).split())))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"


def _end_progress_bars() -> None:
    """End the line of a progress bar that an error has interrupted, so that what follows has a line of its own."""
    bars = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    for bar in list(getattr(bars, "_instances", ())):
        bar.close()


@contextmanager
def one_line_errors(command: str, *also: type[Exception]) -> Iterator[None]:
    """Turn an exception raised inside into one line of error and exit status 2.

    An unexpected exception shows its traceback first; with `SAFE_SFT_DEBUG=1` every exception does.

    Args:
        command: name of the command, such as `train`.
        also: types of exception that mean wrong input in this command, besides those that always do.

    Raises:
        SystemExit: with status 2.
    """
    try:
        yield
    except Exception as error:
        problem = disk_problem(error)
        speaks = problem or type(error).__module__.partition(".")[0] in _SPEAKING
        foreseen = speaks or isinstance(error, (ValueError, OSError, ModuleNotFoundError, *also))
        _end_progress_bars()
        if not foreseen or os.environ.get(DEBUG, "") not in ("", "0"):
            print(clean_text(traceback.format_exc()), end="", file=sys.stderr)
        say_error(command, problem or (error if foreseen else f"{type(error).__name__}: {error}"))
        raise SystemExit(Status.WRONG) from error


class Interrupted(KeyboardInterrupt):
    """A signal has come.

    Attributes:
        signal: number of the signal.
        go_on: sentence on how to go on, instead of the command's own.
    """

    def __init__(self, number: int, go_on: str | None = None):
        super().__init__()
        self.signal, self.go_on = number, go_on


@contextmanager
def ends_on_signal(command: str, go_on: str = "") -> Iterator[None]:
    """Turn SIGINT and SIGTERM into one line, and the status that a shell gives to a command stopped by them.

    Args:
        command: name of the command, such as `train`.
        go_on: sentence on how to go on.

    Raises:
        SystemExit: with status 130 or 143.
    """

    def terminate(*_: object) -> NoReturn:
        raise Interrupted(signal.SIGTERM)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        _end_progress_bars()
        said = getattr(error, "go_on", None) or go_on
        print(f"safe-sft {command}: stopped by {signal.Signals(number).name}. {said}".rstrip(), file=sys.stderr)
        raise SystemExit(Status(128 + number)) from None
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ends_processes(main: Callable[[list[str] | None], int]) -> Callable[..., int]:
    """Make `main` close the process group: its threads can crash an interpreter that exits before they end."""

    @wraps(main)
    def run(argv: list[str] | None = None) -> int:
        status = main(argv)
        distributed = sys.modules.get("torch.distributed")  # nothing to end where nothing imported it
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        return status

    return run
