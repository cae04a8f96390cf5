"""Evaluations and reports on disk."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ...storage.writing import write_text
from ..evaluate import Evaluation
from ..gate import Check
from ..report import SafetyReport
from .results import answer_lines, results


def write_report(report: SafetyReport, folder: str | os.PathLike[str], **about: object) -> None:
    """Write `answers.jsonl` (prompt, answer, verdict) and `results.json` (the rates, and what is said in `about`)."""
    rows = zip(report.prompts, report.answers, report.verdicts, strict=True)
    content = {
        **about,
        "judge": report.judge,
        "asr": report.asr.as_dict(),
        "refusal": report.refusal.as_dict(),
        "degenerate": report.degenerate.as_dict(),
    }
    lines = [json.dumps({"prompt": p, "answer": a, "verdict": v.value}, ensure_ascii=False) for p, a, v in rows]
    write_text(Path(folder) / "answers.jsonl", "\n".join(lines) + "\n")
    write_text(Path(folder) / "results.json", json.dumps(content, indent=2) + "\n")


def write_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str], checks: Sequence[Check] = ()) -> None:
    """Write `answers.jsonl`, `results.json`, the plots, and `report.html`, which needs no other file."""
    from .html import report_html
    from .plots import plots

    path = Path(folder)
    write_text(path / "answers.jsonl", "".join(line + "\n" for line in answer_lines(evaluation)))
    write_text(path / "results.json", json.dumps(results(evaluation, checks), indent=2, ensure_ascii=False) + "\n")
    drawn = plots(evaluation)
    for name, picture in drawn.items():
        write_text(path / f"{name}.svg", picture)
    write_text(path / "report.html", report_html(evaluation, checks, drawn))
