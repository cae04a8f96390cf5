"""Reads evidence that may be forged: bounded files, JSON without a second meaning, and errors that name the file."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

#: Most bytes of a file that is read whole.
MOST_BYTES = 64 * 2**20
_PIECE = 2**20
#: Never follows a link, never waits for the other end of a pipe; a system may lack some of them.
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
#: What to do about a file that is not as it was written.
RESTORE = "Restore it from a copy as it was written, or measure the model anew with `safe-sft evaluate --output`."
#: Characters of a name or a reason that are repeated.
_LONGEST = 300


class EvidenceError(ValueError):
    """Evidence that is missing, or cannot be written as it is asked for."""

    @property
    def fault(self) -> str:
        """What is wrong, without what to do."""
        return str(self)


class Mismatch(EvidenceError):
    """A file that is not what the evidence says.

    Attributes:
        path: path of the file, in the folder.
        reason: what is wrong with it; the rest of a sentence that begins with the path.
        remedy: what to do, in a sentence.
    """

    def __init__(self, path: str, reason: str, remedy: str = RESTORE):
        self.path, self.reason, self.remedy = path, reason, remedy
        super().__init__(f"{self.fault} {remedy}")

    @property
    def fault(self) -> str:
        """What is wrong, without what to do."""
        return f"'{_short(self.path)}' {_short(self.reason)}"


class FileDigest(NamedTuple):
    """What a file holds.

    Attributes:
        size: its bytes.
        sha256: their digest, in hexadecimal.
    """

    size: int
    sha256: str


def digest_file(path: Path, name: str, size: int | None = None) -> FileDigest:
    """Digest a file piece by piece.

    Args:
        path: path of the file.
        name: what it is called in error messages.
        size: number of bytes that it must have; a file of another size is not read.

    Raises:
        Mismatch: when it is no file, or of another size.
    """
    digest, read = hashlib.sha256(), 0
    with opened(path, name) as file:
        found = os.fstat(file.fileno()).st_size
        if size is not None and found != size:
            raise Mismatch(name, f"was changed: it has {found} bytes, and had {size}.")
        while piece := file.read(_PIECE):
            digest.update(piece)
            read += len(piece)
            if read > found:
                raise Mismatch(name, "grows while it is read.", "Wait until nothing writes to it.")
    return FileDigest(read, digest.hexdigest())


def read_bytes(path: Path, name: str) -> bytes:
    """Read a file of a few megabytes at most.

    Raises:
        Mismatch: when it is no file, or too large.
    """
    with opened(path, name) as file:
        content: bytes = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise Mismatch(name, f"has more than {MOST_BYTES} bytes, which no file of its kind has.")
    return content


@contextmanager
def opened(path: Path, name: str) -> Iterator[Any]:
    """Open a file to read its bytes, if it is one.

    Args:
        path: path of the file.
        name: what it is called in error messages.

    Raises:
        Mismatch: when it is none: a link, a pipe, a folder, or nothing.
    """
    try:
        number = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise Mismatch(name, "is missing.") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Mismatch(name, f"cannot be read ({why}).", "Check its rights, or restore it.") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise Mismatch(name, "is no regular file.")
    with os.fdopen(number, "rb") as file:
        yield file


def parse_json(text: str | bytes, name: str) -> Any:
    """Read JSON in which no key is written twice and every number is finite.

    Args:
        text: the JSON.
        name: the file that it stands in, for error messages.

    Raises:
        Mismatch: when it is none.
    """
    try:
        return json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise Mismatch(name, f"is not JSON as this package writes it ({reason}).") from error


def canonical(content: Any) -> bytes:
    """Return the one way in which a value is written as JSON in a line: keys in order, ASCII, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def text_digest(content: Any) -> str:
    """Digest a plain value."""
    return hashlib.sha256(canonical(content)).hexdigest()


def document(content: Any) -> str:
    """Return a value as the text of a file that people read: the same value gives the same bytes."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


@contextmanager
def as_written(name: str) -> Iterator[None]:
    """Turn whatever a value of the wrong form causes into a mismatch of the file that holds it.

    Args:
        name: path of the file.
    """
    try:
        yield
    except EvidenceError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise Mismatch(name, f"does not hold what this package writes ({type(error).__name__}: {error}).") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is written twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
