"""What a run measured, as flat numbers: read from what it saved, and kept in its folder."""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..hub.results import AFTER, BEFORE, MERGED, Row, result_rows
from ..hub.safety import read_safety
from ..storage.damage import undamaged
from ..storage.names import MEASURED_ANSWERS
from .folder import ANSWERS, RunFolder
from .runs import Run
from .stages import FIRST, earlier_name

#: The rates that are kept of each model, by the kind of `hub.results`.
RATES = ("asr", "over_refusal", "right", "loss")
OF_SAFETY, OF_TASK = RATES[:2], RATES[2:]


def collect(folder: RunFolder, seconds: float) -> dict[str, Any]:
    """Return what a run that has ended measured, and move its answers out of the model's folder.

    Args:
        folder: the run's folder.
        seconds: how long the run took.

    Raises:
        ValueError: when it has not measured its model.
    """
    safety = read_safety(folder.model)
    rows = result_rows(safety or {})
    earlier = {earlier_name(number) for number in range(1, len(folder.run.stages))}
    last = next((name for name in (MERGED, AFTER) if any(name in row.rates for row in rows)), None)
    if safety is None or last is None:
        raise ValueError("it has measured nothing. Keep `safety_eval: true`, and do not shard the weights.")
    answers = folder.model / MEASURED_ANSWERS
    if answers.is_file():
        os.replace(answers, folder.path / ANSWERS)
    return {
        "run": folder.run.name,
        "digest": folder.run.digest,
        "safe_sft": safety.get("safe_sft"),
        "seconds": round(seconds, 1),
        "model": last,
        "before": _rates(rows, BEFORE, earlier),
        "after": _rates(rows, last, earlier),
        **({"earlier": {name: _rates(rows, last, only=name) for name in sorted(earlier)}} if earlier else {}),
    }


def _rates(
    rows: Sequence[Row], model: str, but: Collection[str] = (), only: str | None = None
) -> dict[str, dict[str, Any]]:
    """Return the rates of one model by kind; of several suites the first, which is the user's."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        is_meant = row.subject not in but if only is None else row.subject == only
        if model in row.rates and row.kind in RATES and is_meant:
            found.setdefault(row.kind, {**row.rates[model], "subject": row.subject})
    return found


def before_of(run: Run, measured: Mapping[str, Any], parent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rates of the aligned model, for a run that starts from another one.

    Args:
        run: a merge, or a later stage.
        measured: what it has measured.
        parent: what the run that it starts from has measured.
    """
    if run.after is not None:  # a merge asks the merge alone
        return dict(parent["before"])
    if run.anchor == FIRST:
        return dict(measured["before"])
    # Before it trains, it is the model of the last stage; of the aligned one, the safety is known.
    return {kind: rate for kind, rate in parent["before"].items() if kind in OF_SAFETY}


def outcomes(folder: RunFolder, model: str, measured: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
    """Return which prompts had the outcome that each rate counts, by rate and by prompt.

    Args:
        folder: a complete run.
        model: `before`, or the model of its numbers.
        measured: its `done.json`; names the suites and tasks that its rates are of.
    """
    rates = measured["before" if model == BEFORE else "after"]
    subjects = {kind: rate["subject"] for kind, rate in rates.items()}
    path, remedy = folder.path / ANSWERS, "Remove the folder that it is in, so that the run is done again."
    if not path.is_file():
        return {}
    with undamaged(path, remedy), path.open(encoding="utf-8") as file:
        return _outcomes(map(json.loads, file), model, subjects)


def _outcomes(lines: Iterable[dict[str, Any]], model: str, subjects: Mapping[str, str]) -> dict[str, dict[str, bool]]:
    found: dict[str, dict[str, bool]] = {}
    for line in lines:
        if line["model"] != model:
            continue
        if "task" in line:
            if line["task"] == subjects.get("right"):
                rows = found.setdefault("right", {})
                rows[str(len(rows))] = bool(line["right"])
            continue
        kind, counted = ("asr", "complied") if line["harmful"] else ("over_refusal", "refused")
        verdict = next(iter(line["verdicts"].values()), None)
        if line["suite"] == subjects.get(kind) and verdict != "unjudged":
            found.setdefault(kind, {})[line["prompt"]] = verdict == counted
    return found
