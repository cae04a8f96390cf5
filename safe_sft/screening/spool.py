"""Rows with their scores on disk, as JSON lines: streamed rows are read once, and written more than once."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..storage.writing import complete_file
from .score import RowScore


class Spool:
    """A file of rows and scores.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self.path = path

    def fill(self, scored: Iterable[tuple[Mapping[str, Any], RowScore]]) -> None:
        """Write rows and scores, as they come, whole or not at all; the main process writes, and every one waits.

        Args:
            scored: the rows with their scores; every process goes through all of them.
        """
        state = PartialState()
        if state.is_main_process:
            with complete_file(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
                for row, score in scored:
                    kept = {"index": score.index, **score.as_dict(), "verdicts": dict(score.verdicts)}
                    file.write(json.dumps({"row": row, "score": kept}, ensure_ascii=False, default=str) + "\n")
        else:
            for _ in scored:
                pass
        state.wait_for_everyone()

    def __iter__(self) -> Iterator[tuple[dict[str, Any], RowScore]]:
        """Yield every row with its score, in order."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                content = json.loads(line)
                yield content["row"], RowScore.from_dict(content["score"])

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
