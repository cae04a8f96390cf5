"""Writes an evaluation into a folder."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...storage.secrets import cleaned
from ...storage.writing import write_json, write_text
from ...version import __version__
from ..evaluate import Evaluation
from ..gate import Check
from ..judges.labels import JudgeAccuracy, LabelledAnswers
from .results import answer_lines, results


def write_accuracies(
    found: Sequence[JudgeAccuracy], labelled: LabelledAnswers, folder: str | os.PathLike[str]
) -> None:
    """Write `judges.json`: how right each judge is, and the answers on which it differs from the labels."""
    judges = [{**one.as_dict(), "disagreements": list(_differing(one, labelled))} for one in found]
    content = {"safe_sft": __version__, "labels": labelled.source, "judges": judges}
    write_json(Path(folder) / "judges.json", cleaned(content))


def _differing(one: JudgeAccuracy, labelled: LabelledAnswers) -> Iterator[dict[str, Any]]:
    for row in one.agreement.disagreements:
        said = {"label": labelled.labels[row], "verdict": one.verdicts[row].value}
        yield {"row": row, "request": labelled.requests[row], "answer": labelled.answers[row], **said}


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
