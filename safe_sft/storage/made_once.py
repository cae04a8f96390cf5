"""Work that several processes want: the first makes it under a lock of the kernel, the others wait and read it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .folders import require_folder


@contextmanager
def made_once(path: Path) -> Iterator[None]:
    """Hold `path`, a file or folder that may not be there yet, inside this context; every rank must enter it.

    Whoever finds it there when it has entered may read it, and else makes it. The lock ends with the process that has
    it, however that ends; where the system has no such locks (Windows), nothing is held, and work may be done twice.

    Args:
        path: what is made; its folder is made here.
    """
    from accelerate import PartialState

    require_folder(path.parent, "preparation_store")
    state, lock = PartialState(), None
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if state.is_main_process:
            lock = _lock(path.with_name(f".{path.name}.lock"))
        state.wait_for_everyone()
        yield
        state.wait_for_everyone()
    finally:
        if lock is not None:
            os.close(lock)


def _lock(path: Path) -> int | None:
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except BaseException:
        os.close(lock)
        raise
    return lock
