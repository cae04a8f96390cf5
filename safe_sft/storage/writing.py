"""Files that are written whole or not at all: at every moment a path is absent, the old file or the new one."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8; its folder is made.

    Args:
        path: the file.
        text: all of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Args:
        path: the file, in a folder that exists.
        tensors: by name.
        metadata: of its header.
    """
    from safetensors.torch import save_file

    with _replaced(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end."""
    temporary = path.with_name(f".{path.name}.tmp")
    yield temporary
    os.replace(temporary, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, indented."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
