"""Writes an evaluation into a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from ...storage.writing import write_json, write_text
from ..evaluate import Evaluation
from ..gate import Check
from .results import answer_lines, results


def write_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str], checks: Sequence[Check] = ()) -> None:
    """Write `answers.jsonl`, `results.json`, the plots, and `report.html`, which needs no other file."""
    from .html import report_html
    from .plots import plots

    path = Path(folder)
    write_text(path / "answers.jsonl", "".join(line + "\n" for line in answer_lines(evaluation)))
    write_json(path / "results.json", results(evaluation, checks))
    drawn = plots(evaluation)
    for name, picture in drawn.items():
        write_text(path / f"{name}.svg", picture)
    write_text(path / "report.html", report_html(evaluation, checks, drawn))
