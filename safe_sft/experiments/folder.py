"""The folder of a run: complete or absent, held by one process at a time, and by none once its processes are dead.

recipe.yaml    what is trained; `safe-sft train --config` takes it
log.txt        what the run printed
model/         what it saved
answers.jsonl  every measured answer, with its verdict
done.json      the numbers, written last: without it, the run is not there
error.json     why it failed
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..storage.json_object import read_json_object
from ..storage.secrets import clean_text, without_secrets
from ..storage.writing import write_json, write_text
from .runs import Run
from .stage_recipe import stage_recipe

DONE, ERROR, LOG, MODEL, RECIPE, ANSWERS = (
    "done.json",
    "error.json",
    "log.txt",
    "model",
    "recipe.yaml",
    "answers.jsonl",
)
_LOCK = "lock"
#: Answers of the aligned model, which all runs share.
STORE = "aligned-answers"
#: What runs prepare and share: importance, teacher caches, the aligned model's answers to safety prompts.
SHARED = "shared"
#: What to do where a file of a run is damaged.
_REMEDY = "Remove it, so that the run is done again."


class RunFolder:
    """Where a run is kept.

    Args:
        root: folder of the experiment.
        run: the run; its digest names the folder.
    """

    def __init__(self, root: str | os.PathLike[str], run: Run):
        self.run = run
        self.root = Path(root)
        self.path = self.root / "runs" / run.digest

    @property
    def model(self) -> Path:
        """Where the run saves its model."""
        return self.path / MODEL

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.path / LOG

    def done(self) -> dict[str, Any] | None:
        """Return what was measured; None while the run is not complete.

        Raises:
            ValueError: when the file is damaged.
        """
        found = _read(self.path / DONE)
        if found is not None and not isinstance(found.get("model"), str):
            raise ValueError(f"'{self.path / DONE}' is damaged. {_REMEDY}")
        return found

    def error(self) -> str | None:
        """Return why the run failed; None where it did not."""
        content = _read(self.path / ERROR)
        return None if content is None else str(content.get("error"))

    def age_of(self, name: str) -> float:
        """Return when a file was written, in seconds of the epoch; 0 where there is none."""
        try:
            return (self.path / name).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def hold(self) -> int | None:
        """Hold the run; returns the lock, which `os.close` gives back, or None where another process has it.

        The kernel keeps the lock with the open file: it ends with the last process that has it open, however that
        ends.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def begin(self, *, anew: bool) -> None:
        """Write what is to be run; whoever calls it holds the run.

        Args:
            anew: whether to delete what an earlier try has left, its checkpoints too.
        """
        for name in (DONE, ERROR) if anew else (ERROR,):
            (self.path / name).unlink(missing_ok=True)
        if anew and self.model.exists():
            shutil.rmtree(self.model)
        shared = {
            "disable_tqdm": True,
            "safety_eval_store": str(self.root / STORE),
            "preparation_store": str(self.root / SHARED),
        }
        before = None if self.run.start is None else RunFolder(self.root, self.run.start).model
        recipe = without_secrets({**shared, **stage_recipe(self.run, before), "output_dir": str(self.model)})
        write_text(self.path / RECIPE, f"# {self.run.name}\n{yaml.safe_dump(recipe, allow_unicode=True)}")

    def finish(self, measured: Mapping[str, Any]) -> None:
        """Write what was measured: the run is complete. Checkpoints go, and a merge's weights, soon made again.

        Args:
            measured: its numbers.
        """
        left = [*self.model.glob("checkpoint-*"), *(self.model.glob("merged") if self.run.after else ())]
        for path in left:
            shutil.rmtree(path)
        write_json(self.path / DONE, measured)

    def fail(self, error: str) -> None:
        """Write why the run failed."""
        write_json(self.path / ERROR, {"error": clean_text(error), "run": self.run.name, "log": str(self.log)})


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json_object(path, _REMEDY)
    except FileNotFoundError:
        return None
