"""Files that are written whole or not at all: a path is always absent, the old file, or the new one."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .disk import writing

if TYPE_CHECKING:
    from torch import Tensor

# No process writes for so long without adding to its file.
_ABANDONED_S = 3600


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Open a new file beside `path`; it takes that name when all is written, and is deleted if something fails.

    Args:
        path: path that the file will have; its folder is made.

    Yields:
        The path to write to, `.<name>.….tmp`: a new one each time, so that several processes may write at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with writing(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # the first error says more
            temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Delete what processes that were killed while writing `path` have left beside it.

    Files that were changed within the last hour stay: another process may be writing them.

    Args:
        path: path of the file.
    """
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        with suppress(FileNotFoundError):  # another process is done with it
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8.

    Args:
        path: path of the file; its folder is made.
        text: content of the file.
    """
    with complete_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes.

    Args:
        path: path of the file; its folder is made.
        content: content of the file.
    """
    with complete_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> None:
    """Write JSON, indented.

    Args:
        path: path of the file; its folder is made.
        content: content of the file.
        default: function that turns values that JSON does not know into ones that it knows.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=default) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Args:
        path: path of the file; its folder is made.
        tensors: the tensors, by name.
        metadata: texts for the file's header, by name.
    """
    from safetensors.torch import save_file

    with complete_file(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata)
