"""The results of an experiment: one row for each cell of the grid, and one for the aligned model of each."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..hub.results import BEFORE
from ..storage.writing import complete_file, write_text
from .folder import RunFolder
from .grid import Cell, Experiment
from .measured import RATES, outcomes
from .runs import Run

#: What tables call the model before training.
ALIGNED = "aligned"
SEED = "seed"


@dataclass(frozen=True)
class Result:
    """What was measured for a cell.

    Attributes:
        cell: the cell.
        folder: folder of the run that fills it.
        measured: its numbers; None where the run is not there.
        error: why it failed; None where it did not.
        parent: folder of the run that it starts from; None for what is trained.
    """

    cell: Cell
    folder: RunFolder
    measured: Mapping[str, Any] | None
    error: str | None = None
    parent: RunFolder | None = field(default=None, repr=False)

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
        measured, error = folder.done(), folder.error()
        parent = None if run.after is None else RunFolder(root, run.after)
        for cell in run.cells:
            found[cell.variant, tuple(cell.point.values())] = Result(cell, folder, measured, error, parent)
    return [found[cell.variant, tuple(cell.point.values())] for cell in experiment.cells]


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
    state = "done" if result.measured is not None else "failed" if result.error else "missing"
    row: dict[str, Any] = {"variant": result.cell.variant if is_after else ALIGNED}
    row |= {axis: result.cell.point[axis] for axis in experiment.axes}
    row |= {"state": state, "digest": result.folder.run.digest}
    for kind in RATES:
        rate = measured.get(model, {}).get(kind) or {}
        row |= {f"{kind}_subject": rate.get("subject"), kind: rate.get("value")}
        row |= {f"{kind}_{end}": rate.get(end) for end in ("low", "high", "n")}
        row |= {f"{kind}_successes": rate.get("successes")} if kind != "loss" else {}
    shares = (measured.get(model, {}).get("asr") or {}).get("shares", {})
    row |= {"degenerate": shares.get("degenerate"), "unjudged": shares.get("unjudged")}
    row |= {"seconds": measured.get("seconds") if is_after else None, "safe_sft": measured.get("safe_sft")}
    return {**row, "error": result.error if is_after else None}


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

    numbers = {*RATES, "degenerate", "unjudged", "seconds"} | {f"{k}_{end}" for k in RATES for end in ("low", "high")}
    counts = {f"{kind}_{name}" for kind in RATES for name in ("n", "successes")}
    kinds = {
        name: pyarrow.float64() if name in numbers else pyarrow.int64() if name in counts else pyarrow.string()
        for name in table[0]
    }
    columns = {name: pyarrow.array([row[name] for row in table], kind) for name, kind in kinds.items()}
    with complete_file(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)


def _cell(value: Any) -> Any:
    """Put a quote before a text that a spreadsheet would read as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
