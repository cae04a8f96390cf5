"""How a command ends: what is wrong in one line, and with the process group that it may have started."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps


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


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """What is wrong with a recipe, its data or its model is one line and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        print(f"safe-sft {command}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
