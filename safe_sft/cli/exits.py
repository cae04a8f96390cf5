"""How a command ends: its status, what is wrong in one line, and the process group that it may have started.

| status | meaning |
|---|---|
| 0 | done |
| 1 | a bound or a gate was not kept |
| 2 | wrong input, or something that the command needs is missing |

There is no other one, but for those of the shell (130, 143: stopped by a signal).
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from typing import NoReturn

#: Set to 1, shows where an error came from, as `--debug` does.
DEBUG = "SAFE_SFT_DEBUG"

#: Whose errors say value, reason and remedy, or what is wrong with a file or the network: by name, for none of these
#: is imported before it is needed.
_SPEAKING = {"safe_sft", "yaml", "jinja2", "safetensors", "huggingface_hub", "httpx", "requests"}


class Status(IntEnum):
    """The exit status of a command."""

    DONE = 0
    NOT_KEPT = 1
    WRONG = 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the list of all that there are."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit."""
        self.exit(Status.WRONG, f"{self.prog}: error: {' '.join(message.split())}\n")


def say_error(command: str, error: BaseException | str) -> None:
    """Print what is wrong, in one line.

    Args:
        command: such as `train`.
        error: what was raised, or a sentence.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"safe-sft {command}: error: {text}", file=sys.stderr)


@contextmanager
def one_line_errors(command: str, *also: type[Exception]) -> Iterator[None]:
    """Turn what is raised inside into one line and exit status 2.

    What nobody foresaw shows its traceback first; with `SAFE_SFT_DEBUG=1` everything does.

    Args:
        command: such as `train`.
        also: errors that come of wrong input here, besides those that always do.

    Raises:
        SystemExit: with status 2.
    """
    try:
        yield
    except Exception as error:
        speaks = type(error).__module__.partition(".")[0] in _SPEAKING
        foreseen = speaks or isinstance(error, (ValueError, OSError, ModuleNotFoundError, *also))
        if not foreseen or os.environ.get(DEBUG, "") not in ("", "0"):
            traceback.print_exc()
        say_error(command, error if foreseen else f"{type(error).__name__}: {error}")
        raise SystemExit(Status.WRONG) from error


def ends_processes(main: Callable[[list[str] | None], int]) -> Callable[..., int]:
    """`main`, which ends its process group: threads of that can abort an interpreter that ends before them."""

    @wraps(main)
    def run(argv: list[str] | None = None) -> int:
        status = main(argv)
        distributed = sys.modules.get("torch.distributed")  # nothing to end where nothing imported it
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        return status

    return run
