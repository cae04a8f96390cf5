"""Scores that are known already, on disk: a screening that was stopped goes on, whatever its processes are."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage.damage import undamaged
from ..storage.writing import remove_unfinished, write_text

#: What to do where a file of scores is damaged.
REMEDY = "Remove it; its rows are then scored anew."


class Parts:
    """A folder with a file for each part of the rows, named by all that its scores depend on.

    Args:
        folder: the folder, which every process sees; None keeps nothing.
        common: what the scores of every row depend on, as plain values: model, tokenizer, openings, settings.
    """

    def __init__(self, folder: Path | None, common: Mapping[str, Any]):
        self._folder = folder
        self.digest = _digest([dict(common)])

    def get(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
        """Return what is known of these rows, in order; None where it is not."""
        if self._folder is None:
            return None
        path = self._path(rows)
        remove_unfinished(path)
        if not path.is_file():
            return None
        with undamaged(path, REMEDY):
            found = [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
            if len(found) != len(rows):
                raise ValueError(f"it has the scores of {len(found)} rows, and not of {len(rows)}")
        return found

    def put(self, rows: Sequence[Mapping[str, Any]], scores: Iterable[Mapping[str, Any]]) -> None:
        """Keep the scores of these rows, whole or not at all."""
        if self._folder is not None:
            write_text(self._path(rows), "".join(json.dumps(dict(score)) + "\n" for score in scores))

    def _path(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        assert self._folder is not None
        return self._folder / f"part-{_digest([self.digest, *rows])}.jsonl"


def _digest(values: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(json.dumps(value, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:32]
