"""The folder beside the output in which a repair keeps its rounds and answers, so that a killed one goes on."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.answering import AnswerStore
from ..storage.json_object import read_json_object
from ..storage.writing import write_json

SETTINGS_FILE = "repair.json"


@dataclass(frozen=True)
class Workbench:
    """The folder; each round in it is complete or not there.

    Attributes:
        folder: `OUTPUT.rounds`.
        store: the answers of all models that were measured.
    """

    folder: Path
    store: AnswerStore

    @classmethod
    def open(cls, output: Path, settings: Mapping[str, Any]) -> "Workbench":
        """Open the folder beside `output`, or make it.

        Args:
            output: folder that the repaired model is to be written to.
            settings: all that the rounds depend on, as plain JSON values.

        Raises:
            ValueError: when it holds the rounds of another repair.
        """
        folder = output.absolute().with_name(f"{output.absolute().name}.rounds")
        path, wanted = folder / SETTINGS_FILE, json.loads(json.dumps(settings))
        if path.is_file():
            found = read_json_object(path, "Remove its folder, or choose another output.")
            other = [name for name in wanted if found.get(name) != wanted[name]]
            if other:
                name = other[0]
                raise ValueError(
                    f"'{folder}' holds the rounds of another repair: `{name}` was {found.get(name)!r} there, and is "
                    f"{wanted[name]!r} here. Remove that folder, or choose another output."
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                f"'{folder}', where the rounds are to be kept, holds other files. Choose another output, or move them."
            )
        else:
            write_json(path, wanted)
        return cls(folder, AnswerStore(folder / "answers"))

    def round(self, number: int) -> Path:
        """Return the folder of a round, which may not be there yet."""
        return self.folder / f"round-{number}"

    def is_done(self, number: int) -> bool:
        """Return whether a round is complete."""
        return self.round(number).is_dir()

    def keep_flop(self, number: int, flop: float | None) -> None:
        """Keep the operations of a round; None where they were not counted."""
        write_json(self.folder / f"round-{number}.flop.json", {"flop": flop})

    def flop(self, rounds: int) -> float | None:
        """Return the operations of the first rounds together; None where those of one are not known."""
        paths = [self.folder / f"round-{number}.flop.json" for number in range(1, rounds + 1)]
        found = [read_json_object(p, "Remove it.").get("flop") if p.is_file() else None for p in paths]
        known = [float(flop) for flop in found if flop is not None]
        return sum(known) if len(known) == rounds else None

    def merged(self, weight: float) -> Path:
        """Return the folder of the merge of this weight, which may not be there yet."""
        return self.folder / f"merge-{weight:g}"

    def remove(self) -> None:
        """Remove the folder, once the repaired model is written."""
        shutil.rmtree(self.folder)
