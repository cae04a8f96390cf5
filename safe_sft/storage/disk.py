"""Says in words why a file could not be written: a full disk, a read-only one, or one of somebody else's."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Number of the system -> what is wrong, and what to do.
_PROBLEMS = {
    errno.ENOSPC: ("the disk is full", "Free space there, or choose a folder on another disk"),
    errno.EDQUOT: ("the quota of the disk is used up", "Free space there, or choose a folder on another disk"),
    errno.EROFS: ("the disk is read-only", "Choose a folder on another disk"),
    errno.EACCES: ("permission denied", "Change its permissions, or choose another path"),
    errno.EPERM: ("permission denied", "Change its permissions, or choose another path"),
}
#: What libraries say that do not raise `OSError`: safetensors gives the number, torch only that it could not write.
_NUMBER = re.compile(r"\(os error (\d+)\)")
_TORCH = re.compile(r"PytorchStreamWriter failed writing|inline_container\.cc.*unexpected pos", re.DOTALL)


_OF_CONNECTIONS = (errno.EACCES, errno.EPERM)


class DiskError(OSError):
    """A file could not be written."""


def disk_problem(error: BaseException) -> str | None:
    """Return one sentence with the path and the remedy; None for an error that has nothing to do with a disk.

    Args:
        error: an exception of this package or of a library, or one that was raised from it.
    """
    seen: BaseException | None = error
    while seen is not None:
        if (number := _number(seen)) is not None:
            what, remedy = _PROBLEMS[number]
            path = getattr(seen, "filename", None)
            return f"{what[0].upper()}{what[1:]}{f': {os.fspath(path)!r}' if path else ''}. {remedy}."
        if isinstance(seen, (ValueError, OSError)):
            return None  # says itself what is wrong
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an error of the disk inside this context name what was being written, where a library does not.

    Args:
        path: the file or folder that is written to.

    Raises:
        DiskError: in place of such an error.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number is None or getattr(error, "filename", None) is not None:
            raise
        raise DiskError(number, os.strerror(number), str(Path(path))) from error


def _number(error: BaseException) -> int | None:
    """Return the system's number of the problem, where it is one of those that are known here."""
    text = str(error)
    if isinstance(error, OSError):
        # Without a file, it may be a connection that is not permitted.
        number = None if error.filename is None and error.errno in _OF_CONNECTIONS else error.errno
    elif found := _NUMBER.search(text):
        number = int(found[1])
    else:
        number = errno.ENOSPC if _TORCH.search(text) else None  # as good as always
    return number if number in _PROBLEMS else None
