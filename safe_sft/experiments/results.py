"""The results of an experiment: one row for each cell of the grid, and one for the aligned model of each."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..hub.results import BEFORE
from ..storage.writing import complete_file, write_text
from .cells import Cell
from .folder import RunFolder
from .grid import Experiment
from .measured import OF_TASK, RATES, outcomes
from .runs import Run
from .stages import STAGE, earlier_name

#: What tables call the model before training.
ALIGNED = "aligned"
SEED = "seed"
_NUMBERS = re.compile(rf"({'|'.join(RATES)})(_stage_\d+)?(_low|_high)?|degenerate|unjudged|seconds")
_COUNTS = re.compile(rf"({'|'.join(RATES)})(_stage_\d+)?_(n|successes)")
#: End of a column's name -> what it holds of a rate.
_ENDS = {"": "value", "_low": "low", "_high": "high", "_n": "n"}


@dataclass(frozen=True)
class Result:
    """What was measured for a cell.

    Attributes:
        cell: the cell.
        folder: folder of the run that fills it.
        measured: its numbers; None where the run is not there.
        error: why it failed; None where it did not.
        blocked: why it cannot be there: a run that it starts from has failed; None where none has.
    """

    cell: Cell
    folder: RunFolder
    measured: Mapping[str, Any] | None
    error: str | None = None
    blocked: str | None = None

    @property
    def state(self) -> str:
        """Return where it stands, in a word: `done`, `failed`, `blocked` or `missing`."""
        if self.measured is not None:
            return "done"
        return "failed" if self.error else "blocked" if self.blocked else "missing"

    @property
    def why(self) -> str | None:
        """Return why it failed, or is blocked; None where neither is known."""
        return self.error or self.blocked

    def earlier(self, number: int, kind: str) -> dict[str, Any] | None:
        """Return a rate of the tuned model on the task of an earlier stage; None where there is no number.

        Args:
            number: number of the stage, from 1.
            kind: `right` or `loss`.
        """
        found = (self.measured or {}).get("earlier", {}).get(earlier_name(number), {}).get(kind)
        return None if found is None or found.get("value") is None else found

    def rate(self, kind: str, model: str = "after") -> dict[str, Any] | None:
        """Return a rate of the tuned model (`after`) or of the aligned one (`before`); None where there is no number.

        Args:
            kind: `asr`, `over_refusal`, `right` or `loss`.
            model: `after` or `before`.
        """
        found = (self.measured or {}).get(model, {}).get(kind)
        return None if found is None or found.get("value") is None else found

    @cached_property
    def outcomes(self) -> dict[str, dict[str, bool]]:
        """Which prompts had the outcome that each rate counts, of the tuned model."""
        return {} if self.measured is None else outcomes(self.folder, self.measured["model"], self.measured)


def read_results(experiment: Experiment, runs: Sequence[Run], root: Path) -> list[Result]:
    """Read what is there of an experiment.

    Args:
        experiment: the experiment.
        runs: its runs.
        root: its folder.

    Returns:
        One result for each cell, in order.
    """
    found: dict[tuple[str, tuple[str, ...]], Result] = {}
    for run in runs:
        folder = RunFolder(root, run)
        measured, error, blocked = folder.done(), folder.error(), _blocked(run, root)
        for cell in run.cells:
            found[cell.variant, tuple(cell.point.values())] = Result(cell, folder, measured, error, blocked)
    return [found[cell.variant, tuple(cell.point.values())] for cell in experiment.cells]


def _blocked(run: Run, root: Path) -> str | None:
    """Say which of the runs that a run starts from has failed; None where none has."""
    if run.parent is None:
        return None
    folder = RunFolder(root, run.parent)
    if folder.done() is None and folder.error():
        return f"{run.parent.name}, which it starts from, has failed."
    return _blocked(run.parent, root)


def rows(experiment: Experiment, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the results as flat rows: the cells, and before them the aligned models that they start from.

    Args:
        experiment: the experiment.
        results: one result for each cell.
    """
    aligned: dict[tuple[str, ...], dict[str, Any]] = {}
    for result in results:
        if result.measured is not None:
            point = tuple(result.cell.point.values())
            aligned.setdefault(point, _row(experiment, result, BEFORE))
    return [*aligned.values(), *(_row(experiment, result, "after") for result in results)]


def _row(experiment: Experiment, result: Result, model: str) -> dict[str, Any]:
    measured, is_after = result.measured or {}, model == "after"
    row: dict[str, Any] = {"variant": result.cell.variant if is_after else ALIGNED}
    row |= {axis: result.cell.point[axis] for axis in experiment.axes}
    row |= {"state": result.state, "digest": result.folder.run.digest}
    for kind in RATES:
        rate = measured.get(model, {}).get(kind) or {}
        row |= {f"{kind}_subject": rate.get("subject"), kind: rate.get("value")}
        row |= {f"{kind}_{end}": rate.get(end) for end in ("low", "high", "n")}
        row |= {f"{kind}_successes": rate.get("successes")} if kind != "loss" else {}
    for number in range(1, len(experiment.axes.get(STAGE, ()))):
        for kind in OF_TASK:
            earlier = (result.earlier(number, kind) if is_after else None) or {}
            row |= {f"{kind}_stage_{number}{end}": earlier.get(name) for end, name in _ENDS.items()}
    shares = (measured.get(model, {}).get("asr") or {}).get("shares", {})
    row |= {"degenerate": shares.get("degenerate"), "unjudged": shares.get("unjudged")}
    row |= {"seconds": measured.get("seconds") if is_after else None, "safe_sft": measured.get("safe_sft")}
    return {**row, "error": result.why if is_after else None}


def write_csv(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV; what is not known is empty.

    Args:
        table: the rows, all with the same keys.
        path: the file.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in table)
    write_text(path, text.getvalue())


def write_parquet(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as Parquet, with the same columns and types whatever is known.

    Args:
        table: the rows, all with the same keys.
        path: the file.
    """
    import pyarrow
    from pyarrow import parquet

    kinds = {name: getattr(pyarrow, _kind(name))() for name in table[0]}
    columns = {name: pyarrow.array([row[name] for row in table], kind) for name, kind in kinds.items()}
    with complete_file(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)


def _kind(column: str) -> str:
    """Return the type of a column, as `pyarrow` calls it."""
    return "float64" if _NUMBERS.fullmatch(column) else "int64" if _COUNTS.fullmatch(column) else "string"


def _cell(value: Any) -> Any:
    """Put a quote before a text that a spreadsheet would read as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
