"""The end of a command that may have run in several processes."""

import sys
from collections.abc import Callable
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
