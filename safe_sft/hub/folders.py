"""The folders that can be pushed: a model, importance or a teacher cache, each with its card."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, final

from ..models.folders import ADAPTER_CONFIG, MODEL_CONFIG
from ..storage.names import CARD, IMPORTANCE_FILE, TEACHER_FILES, TEACHER_INDEX, teacher_part
from ..storage.quick_start import with_repository
from ..storage.teacher_index import read_teacher_index
from ..storage.writing import write_text
from .templates import render

_MODEL_FILES = (MODEL_CONFIG, ADAPTER_CONFIG)


class PushableFolder(ABC):
    """A folder of a known kind.

    Attributes:
        kind: what the folder holds, in words.
        files: patterns of the files that are pushed; None for all but checkpoints and other traces of a run.
    """

    kind: ClassVar[str]
    files: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, path: Path):
        self.path = path

    @abstractmethod
    def write_card(self, repo: str) -> None:
        """Write or complete the card for the repository `repo`."""

    def _write(self, text: str) -> None:
        write_text(self.path / CARD, text)


@final
class ModelFolder(PushableFolder):
    """A model or an adapter, with the card that was written when it was saved."""

    kind = "model"

    def write_card(self, repo: str) -> None:
        """Let the quick start load `repo`."""
        card = self.path / CARD
        if card.is_file():
            self._write(with_repository(card.read_text(encoding="utf-8"), repo))


@final
class ImportanceFolder(PushableFolder):
    """A folder that `safe-sft importance` wrote."""

    kind = "importance"
    files = (IMPORTANCE_FILE, CARD)

    def write_card(self, repo: str) -> None:
        """Write a card that says what the files were made of."""
        from ..importance import Importance  # which a model does not need, and takes seconds

        importance = Importance.load(self.path)
        made = importance.provenance
        values = {"made": made, "normalization": importance.normalization, "factor": importance.factor}
        method = "mas" if made.estimator == "mas" else "ewc"
        self._write(render("importance_card.md.j2", repo=repo, method=method, **values))


@final
class TeacherFolder(PushableFolder):
    """A folder that `safe-sft teacher` wrote."""

    kind = "teacher cache"
    files = (*TEACHER_FILES, CARD)

    def write_card(self, repo: str) -> None:
        """Write a card that says what the files were made of.

        Raises:
            ValueError: when a part is missing, or the index is none.
        """
        index = read_teacher_index(self.path)
        parts = index["parts"]
        missing = [n for n in map(teacher_part, range(len(parts))) if not (self.path / n).is_file()]
        if missing:
            raise ValueError(f"The teacher cache '{self.path}' lacks {missing[0]}. Build it with `safe-sft teacher`.")
        tokens = [count for part in parts for _, count in part]
        values = {"rows": len(tokens), "tokens": sum(tokens), "parts": len(parts), "made": index["provenance"]}
        self._write(render("teacher_card.md.j2", repo=repo, **values))


def open_folder(path: str | Path) -> PushableFolder:
    """Find out what a folder holds.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when the folder holds nothing that can be pushed.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"The folder '{path}' does not exist (looked in {Path.cwd()}). Check the path.")
    if (path / IMPORTANCE_FILE).is_file():
        return ImportanceFolder(path)
    if any((path / name).is_file() for name in _MODEL_FILES):
        return ModelFolder(path)
    if (path / TEACHER_INDEX).is_file():
        return TeacherFolder(path)
    raise ValueError(
        f"The folder '{path}' holds no model ({' or '.join(_MODEL_FILES)}), no {IMPORTANCE_FILE} and no complete "
        f"teacher cache ({TEACHER_INDEX}). Give one that `safe-sft train`, `merge`, `importance` or `teacher` wrote."
    )
