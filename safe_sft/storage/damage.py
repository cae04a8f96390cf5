"""Files that a command has kept, and reads when it goes on: one that is damaged is named, with what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Kinds of errors that reading something else than what was written ends in.
_FROM_CONTENT = (ValueError, TypeError, LookupError, AttributeError, RecursionError, RuntimeError)


@contextmanager
def undamaged(path: Path, remedy: str) -> Iterator[None]:
    """Read a file inside this context, and use what it holds.

    Args:
        path: the file.
        remedy: what to do where it is damaged, as a sentence.

    Raises:
        ValueError: when it holds something else than what was written.
    """
    try:
        yield
    except Exception as error:
        of_safetensors = type(error).__module__.partition(".")[0] == "safetensors"
        if isinstance(error, OSError) or not (of_safetensors or isinstance(error, _FROM_CONTENT)):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(".")
        raise ValueError(f"'{path}' is damaged ({reason}). {remedy}") from error
