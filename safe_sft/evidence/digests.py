"""Digests of files, weights, rows and code; each file is read once."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..storage.names import CARD, left_out
from ..storage.quick_start import without_repository
from .strict import FileDigest, digest_file, read_bytes, text_digest

#: Names of the files beside the weights that decide what a model answers.
_SETTINGS = re.compile(
    r"(?:config|adapter_config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|(?:chat_template|processor_config|preprocessor_config)\.json|[^/]*\.index\.json"
    r"|[^/]*\.jinja|merges\.txt|vocab\.txt|[^/]*\.model|[^/]*\.py"
)
#: Names of files of weights, of a model or an adapter; an index may name shards as it likes.
_WEIGHTS = re.compile(r"(?:model|adapter_model|pytorch_model)[^/]*\.bin|[^/]*\.safetensors")


def is_weights(path: str) -> bool:
    """Return whether a file holds weights, by its name."""
    name = PurePosixPath(path).name
    return _WEIGHTS.fullmatch(name) is not None and not left_out(name)


class Digests:
    """The digests of files; one that has not changed since is not read again."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int, int], FileDigest] = {}

    def of(self, path: Path, name: str, size: int | None = None) -> FileDigest:
        """Digest a file; a card without the name of its repository, which a push writes into it.

        Args:
            path: path of the file.
            name: its path in the folder, also for error messages.
            size: number of bytes that it must have; None for any.

        Raises:
            Mismatch: when it is no file, or of another size.
        """
        if PurePosixPath(name).name == CARD:
            return card_digest(path, name)
        try:
            found = path.lstat()
        except OSError:
            return digest_file(path, name, size)  # which says what is wrong
        key = (path.parent.resolve() / path.name, found.st_size, found.st_mtime_ns, found.st_ino)
        if size not in (None, found.st_size) or key not in self._known:
            self._known[key] = digest_file(path, name, size)
        return self._known[key]


def card_digest(path: Path, name: str) -> FileDigest:
    """Digest a card as if its quick start loaded no repository.

    Raises:
        Mismatch: when it is no file, or too large.
    """
    text = without_repository(read_bytes(path, name).decode("utf-8", "surrogateescape"))
    content = text.encode("utf-8", "surrogateescape")
    return FileDigest(len(content), hashlib.sha256(content).hexdigest())


def decides_answers(path: str) -> bool:
    """Return whether a file is of weights, or of what else answers depend on: configuration, tokenizer, template."""
    return is_weights(path) or _SETTINGS.fullmatch(path) is not None


def weights_digest(files: Mapping[str, str]) -> str | None:
    """Digest the weights of a model, with its configuration and tokenizer; None where there are no weights.

    Args:
        files: SHA-256 of the files of its folder, by name; those that no answer depends on are not looked at.
    """
    found = sorted((name, sha256) for name, sha256 in files.items() if decides_answers(name))
    return f"sha256:{text_digest(found)}" if any(is_weights(name) for name, _ in found) else None


def folder_weights(folder: Path, digests: Digests) -> str | None:
    """Digest weights, configuration and tokenizer that lie directly in a folder; None where there are no weights.

    Links are followed: the folder may be one of the Hub's cache.

    Args:
        folder: folder of a model or of an adapter.
        digests: digests that are known already.

    Raises:
        Mismatch: when a file cannot be read.
    """
    paths = [path for path in sorted(folder.iterdir()) if decides_answers(path.name) and path.is_file()]
    return weights_digest({path.name: digests.of(path.resolve(), path.name).sha256 for path in paths})


def package_digest() -> str:
    """Digest the code of this package, as it is installed: names and contents of its files."""
    root = Path(__file__).parents[1]
    files = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    named = [(path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    return text_digest(named)


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Digest rows, in order: each as one line of JSON, with its keys in order.

    Args:
        rows: the rows. What JSON does not know, such as a picture, counts by its kind alone.
    """
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(row, sort_keys=True, separators=(",", ":"), default=lambda value: type(value).__name__)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
