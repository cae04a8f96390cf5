"""Writes the results of an experiment into its folder."""

from collections.abc import Sequence
from pathlib import Path

from ..storage.terminal import console, shown
from ..storage.terminal import table as plain_table
from ..storage.writing import write_text
from .compare import columns
from .grid import Experiment
from .results import read_results, rows, write_csv, write_parquet
from .runs import Run
from .table import FORMS, Table, tables

PAGE = "report.html"
#: Name of the chart of a sequence.
STAGE_CHART = "stages"


def write_results(experiment: Experiment, runs: Sequence[Run], root: Path) -> list[Table]:
    """Write the results that are there: `results.csv`, `results.parquet`, tables, charts and `report.html`.

    Args:
        experiment: the experiment.
        runs: its runs.
        root: its folder.

    Returns:
        The tables.
    """
    from .page import page_html
    from .plots import plots
    from .stage_plots import stage_lines

    results = read_results(experiment, runs, root)
    flat, gathered = rows(experiment, results), columns(experiment, results)
    write_csv(flat, root / "results.csv")
    write_parquet(flat, root / "results.parquet")
    made = tables(gathered)
    for name, form in FORMS.items():
        write_text(root / name, form(made, experiment.baseline))
    lines = stage_lines(gathered)
    drawn = {**({STAGE_CHART: lines} if lines else {}), **plots(gathered)}
    for name, picture in drawn.items():
        write_text(root / f"{name}.svg", picture)
    write_text(root / PAGE, page_html(experiment, results, gathered, made, drawn))
    return made


def print_tables(made: Sequence[Table]) -> None:
    """Print the tables on the screen.

    Args:
        made: the tables.
    """
    out = console()
    for one in made:
        pairs = zip(one.groups, one.headings, strict=True)
        headings = [f"{group}\n{what}".strip() for group, words in pairs for what in words]
        rows = plain_table("variant", *headings, title=shown(one.title) if one.title else None)
        for name, row in one.rows.items():
            rows.add_row(name, *(shown(cell.text, "bold" if cell.bold else "") for pair in row for cell in pair))
        out.print(rows)
