"""The distinct runs of an experiment: what two cells have in common is run once."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.files import require_file
from ..version import __version__
from .cells import Cell
from .labels import plain_numbers
from .stages import FIRST

#: Fields that may name a file or a folder of this machine, whose content a run depends on.
_NAMES = (
    *("model_name_or_path", "adapter_name_or_path", "chat_template_path", "importance_path", "dataset_name"),
    *("task_path", "poison_dataset", "safety_dataset_name", "safety_eval_prompts"),
    *("merge_base", "merge_safe"),
)
#: Fields that change where a run writes or what it shows, and no number of it.
_WITHOUT_EFFECT = (
    *("teacher_cache", "safety_eval_store", "preparation_store", "report_to", "run_name", "logging_dir"),
    *("disable_tqdm", "env", "save_total_limit", "save_on_signal", "base_training_flop"),
)
_DIGITS = 16
_PIECE = 2**24


@dataclass(frozen=True)
class Run:
    """Something that is trained, or merged, and then measured.

    Attributes:
        digest: digest of the recipe, the package's version, the data, and of the runs that it starts from.
        recipe: the resolved recipe, without a folder.
        cells: the cells that it fills.
        after: for a merge, the run whose model is merged with the aligned one; None for what is trained.
        start: for a stage, the run of the stage before; None where there is none.
        anchor: for such a stage, what is protected: the `first` aligned model, or what the `last` stage has left.
    """

    digest: str
    recipe: Mapping[str, Any]
    cells: tuple[Cell, ...]
    after: "Run | None" = field(default=None, repr=False)
    start: "Run | None" = field(default=None, repr=False)
    anchor: str = FIRST

    @property
    def name(self) -> str:
        """The first cell that it fills, in words; its digest where it only serves others."""
        return self.cells[0].name if self.cells else f"for others, {self.digest}"

    @property
    def parent(self) -> "Run | None":
        """The run that must be done before; None where there is none."""
        return self.after or self.start

    @property
    def stages(self) -> "list[Run]":
        """The runs of all stages up to this one; of a merge, up to what is merged."""
        last = self.after or self
        return [*(last.start.stages if last.start else []), last]

    @property
    def depth(self) -> int:
        """How many runs must be done before, one after another."""
        return 0 if self.parent is None else self.parent.depth + 1


def distinct_runs(cells: Sequence[Cell]) -> list[Run]:
    """Return the runs that fill all cells, each before those that start from it.

    Args:
        cells: the cells of an experiment.

    Raises:
        FileNotFoundError: when a data file does not exist.
    """
    known: dict[str, str] = {}
    digests: dict[int, str] = {}
    filled: dict[str, list[Cell]] = {}
    for cell in cells:
        filled.setdefault(_digest_of(cell, known, digests), []).append(cell)
    runs: dict[str, Run] = {}

    def add(cell: Cell | None) -> Run | None:
        if cell is None:
            return None
        after, start = add(cell.trained), add(cell.start)
        digest = _digest_of(cell, known, digests)
        start = after.start if after else start
        return runs.setdefault(
            digest, Run(digest, cell.recipe, tuple(filled.get(digest, ())), after, start, cell.anchor)
        )

    for cell in cells:
        add(cell)
    return sorted(runs.values(), key=lambda run: run.depth)  # stable


def share_of(runs: Iterable[Run], index: int, count: int) -> list[Run]:
    """Return every `count`-th run from `index` on; merges and later stages stay with the run that they start from.

    Args:
        runs: all runs of an experiment, in order.
        index: which share, from 0.
        count: number of shares.
    """
    places: dict[str, int] = {}
    shared, firsts = [], 0
    for run in runs:
        place = places[run.parent.digest] if run.parent else firsts
        firsts += run.parent is None
        places[run.digest] = place
        if place % count == index:
            shared.append(run)
    return shared


def _digest_of(cell: Cell, known: dict[str, str], digests: dict[int, str]) -> str:
    """Return the digest of a cell's run, which has those of the runs that it starts from in it."""
    if id(cell) not in digests:
        after, start = (
            None if parent is None else _digest_of(parent, known, digests) for parent in (cell.trained, cell.start)
        )
        is_later = (cell.trained or cell).start is not None
        digests[id(cell)] = run_digest(
            cell.recipe, after, known, start=start, anchor=cell.anchor if is_later else None
        )
    return digests[id(cell)]


def run_digest(
    recipe: Mapping[str, Any],
    after: str | None = None,
    known: dict[str, str] | None = None,
    *,
    start: str | None = None,
    anchor: str | None = None,
) -> str:
    """Digest all that the numbers of a run depend on.

    Args:
        recipe: the resolved recipe.
        after: digest of the run whose model is merged; None for what is trained.
        known: digests of files and folders, by path; what is not among them is read, and added.
        start: digest of the run of the stage before; None where there is none.
        anchor: what such a stage protects; None for a first stage.

    Raises:
        FileNotFoundError: when a data file does not exist.
    """
    settings = {name: value for name, value in recipe.items() if name not in _WITHOUT_EFFECT}
    data = _data(recipe, {} if known is None else known)
    content = {"safe_sft": __version__, "recipe": plain_numbers(settings), "data": data, "after": after}
    content |= {} if anchor is None else {"start": start, "anchor": anchor}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _data(recipe: Mapping[str, Any], known: dict[str, str]) -> dict[str, str]:
    """Digest each file and folder of this machine that a recipe names; names of the Hub count by themselves."""
    names = [recipe.get(name) for name in _NAMES]
    mixture = recipe.get("datasets")
    names += [part.get("path") for part in mixture if isinstance(part, dict)] if isinstance(mixture, list) else []
    found: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name:
            continue
        local = name if Path(name).exists() else name.partition(":")[2] or name  # `advbench:FILE`
        require_file(local)
        if name == recipe.get("task_path") and not Path(name).exists():
            raise FileNotFoundError(f"`task_path={name!r}` does not exist (looked in {Path.cwd()}). Check the path.")
        if Path(local).exists():
            known[local] = known.get(local) or path_digest(local)
            found[name] = known[local]
    return found


def path_digest(path: str) -> str:
    """Digest the content of a file, or the names and contents of a folder's files; hidden ones are left out.

    Args:
        path: a file or folder that exists.
    """
    root, digest = Path(path), hashlib.sha256()
    files = [root] if root.is_file() else sorted(part for part in root.rglob("*") if part.is_file())
    for file in files:
        place = file.relative_to(root).parts
        if not any(part.startswith((".", "_")) for part in place):
            digest.update("/".join(place).encode() + b"\0")
            with file.open("rb") as opened:
                while piece := opened.read(_PIECE):
                    digest.update(piece)
    return digest.hexdigest()[:_DIGITS]
