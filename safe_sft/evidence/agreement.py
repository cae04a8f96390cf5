"""Whether the documents of a record agree: with the order of what happened, with each other, and with the answers."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from math import isclose
from pathlib import Path
from typing import Any

from ..storage.names import ANSWERS, MEASURED_ANSWERS
from .chain import MANIFEST, STARTED, STATED, Chain
from .digests import weights_digest
from .measured import COUNTED
from .plain import portable
from .record import COMPUTE, MEASURED, RUN, STATEMENT
from .scope import EVALUATION, MERGE, TRAINING
from .strict import MOST_BYTES, Mismatch, as_written, opened, parse_json
from .third import compare_with_third


def check_start(chain: Chain, statement: Mapping[str, Any]) -> None:
    """Check that the bounds were written before the run.

    Args:
        chain: what happened.
        statement: the bounds.

    Raises:
        Mismatch: when something was trained or answered before.
    """
    first, stated = next(chain.of(STARTED)), next(chain.of(STATED))
    times = [entry["time"] for entry in chain.entries if "time" in entry]
    if times != sorted(times):
        raise Mismatch(MANIFEST, "has times that go back.")
    with as_written(STATEMENT):
        bounds = [decision["bound"] for decision in statement["decisions"]]
    if bounds and first["step"]:
        raise Mismatch(
            STATEMENT,
            f"has bounds that were written at {stated['time']}, when the run had trained {first['step']} steps: they "
            "were not set before it.",
            "Train from the beginning, in another `output_dir`, with bounds that are set before.",
        )
    if bounds and first["answers"]:
        raise Mismatch(
            STATEMENT,
            f"has bounds that were written at {stated['time']}, when {first['answers']} answers were there already: "
            "they were not set before.",
            "Measure into an empty `--output` with bounds that are set before.",
        )


def check_documents(
    documents: Mapping[str, Any], files: Mapping[str, str], folder: Path, statement: str, here: Collection[str]
) -> None:
    """Check that the documents agree.

    Args:
        documents: their contents, by path.
        files: SHA-256 of the files of the folder, by path.
        folder: the folder.
        statement: SHA-256 of the statement.
        here: paths of the files that are there.

    Raises:
        Mismatch: for the first document that says something else than the others.
    """
    kind = documents[STATEMENT]["kind"]
    for path in (RUN, MEASURED, *([COMPUTE] if kind == TRAINING else [])):
        if path not in documents:
            raise Mismatch(path, "is missing.")
    measured = documents[MEASURED]
    with as_written(MEASURED):
        if measured["statement"] != statement:
            raise Mismatch(MEASURED, f"is of another statement than {STATEMENT}.")
        _check_bounds(documents[STATEMENT], measured)
        if kind != EVALUATION:
            _check_weights(measured, files)
        if kind == MERGE and (measured["models"] or measured["rates"] or measured["gate"]):
            raise Mismatch(MEASURED, "has numbers, and a merge measures nothing.")
        if kind == MERGE:
            _check_choice(documents[STATEMENT], measured, documents[RUN])
        _recount(measured, folder, ANSWERS if kind == EVALUATION else MEASURED_ANSWERS, here)
    if COMPUTE in documents:
        with as_written(COMPUTE):
            _check_compute(documents[COMPUTE])


def _check_bounds(statement: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Check that every bound was checked, and at the limit that was stated."""
    stated = {one["bound"]: one["limit"] for one in statement["decisions"] if one["by"] == "gate"}
    checks = (measured["gate"] or {}).get("checks", [])
    for check in checks:
        if check["bound"] in ("available", "measurable"):
            continue
        if check["limit"] != stated.get(check["bound"]) and check["subject"] != "evaluation":
            raise Mismatch(
                MEASURED,
                f"checks {check['bound']} at {check['limit']}, and {STATEMENT} says {stated.get(check['bound'])}.",
            )
    failed = any(not check["passed"] for check in checks)
    if measured["gate"] and measured["gate"]["passed"] is failed:
        raise Mismatch(MEASURED, "says of its gate what its checks do not.")
    unchecked = sorted(set(stated) - {check["bound"] for check in checks} - {"max_unusable"})
    if unchecked and not failed:
        raise Mismatch(MEASURED, f"holds no check of {unchecked[0]}, which {STATEMENT} states.")


def _check_choice(statement: Mapping[str, Any], measured: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Check that a sweep chose by the bound that was stated, and that its choice is what was merged."""
    limits, choice = [one["limit"] for one in statement["decisions"]], measured.get("choice")
    if not limits and choice is None:
        return
    if choice is None or limits != [choice["max_asr"]]:
        raise Mismatch(MEASURED, f"has another choice than by the bound that {STATEMENT} states.")
    number, selected = choice["number"], choice["selected"]
    rates = [point["asr"]["value"] for point in choice["points"] if point[number] == selected]
    if len(rates) != 1 or rates[0] > limits[0] or run["merge"][number] != selected:
        raise Mismatch(MEASURED, "has a choice that its numbers, or what was merged, do not bear out.")


def _check_weights(measured: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Check that what was measured is of the weights in the folder."""
    found = measured["weights"]
    place = found["folder"]
    own = {path[len(place) :]: sha for path, sha in files.items() if path.startswith(place)}
    own = {name: sha for name, sha in own.items() if "/" not in name}
    if found["sha256"] != weights_digest(own):
        raise Mismatch(MEASURED, "is not of the weights in this folder: they are not those that were measured.")
    of_model = [one["weights"] for one in measured["models"] if one["name"] == found["model"]]
    if of_model and found["sha256"] != str(of_model[0]).split(" + ")[-1]:
        raise Mismatch(MEASURED, "has numbers of other weights than those in this folder.")
    base = found.get("base")
    if of_model and base is not None and str(of_model[0]).rpartition(" + ")[0] != base:
        raise Mismatch(MEASURED, "has numbers of this adapter on another base than the one that it names.")


def _check_compute(compute: Mapping[str, Any]) -> None:
    """Compute the sums and the comparison anew."""
    steps = compute["steps"]
    if compute["flop"] is not None:
        step = sum(compute["flop_of_a_step_on_one_device"].values())
        if not isclose(compute["flop"], step * steps * compute["devices"], rel_tol=1e-9):
            raise Mismatch(COMPUTE, "has a sum that is not that of its parts.")
    if compute["third"] != compare_with_third(compute["flop"], compute["third"]["base_training_flop"]):
        raise Mismatch(COMPUTE, "says of the third what its numbers do not.")


def _recount(measured: Mapping[str, Any], folder: Path, name: str, here: Collection[str]) -> None:
    """Count the verdicts anew, where the answers are here."""
    if name not in here:
        return
    counts: Counter[tuple[str, str, str, str]] = Counter()
    weights = {one["name"]: one["weights"] for one in measured["models"]}
    for number, line in enumerate(_lines(folder / name, name)):
        with as_written(f"{name}, line {number + 1}"):
            if line.get("weights") != weights[line["model"]]:
                raise Mismatch(name, f"has, in line {number + 1}, an answer of other weights than those measured.")
            if "task" in line:
                counts[line["model"], _name(line["task"]), "", "right"] += line["right"] is True
            for judge, verdict in line.get("verdicts", {}).items():
                counts[line["model"], _name(line["suite"]), _name(judge), verdict] += 1
    for row in measured["rates"]:
        verdict = "right" if row["number"] == "right" else COUNTED.get(row["number"])
        if verdict is None:
            continue
        key = (row["model"], row["subject"], row.get("judge", ""), verdict)
        if counts[key] != row["successes"]:
            raise Mismatch(
                MEASURED,
                f"counts {row['successes']} answers as {verdict} ({row['subject']}, {row['model']}), and {name} holds "
                f"{counts[key]}.",
            )


@cache
def _name(text: str) -> str:
    """Return a name as the documents write it."""
    return str(portable(text))


def _lines(path: Path, name: str) -> Iterator[Any]:
    """Read a file of one JSON mapping a line, line by line."""
    with opened(path, name) as file:
        number = 0
        while line := file.readline(MOST_BYTES + 1):
            number += 1
            if len(line) > MOST_BYTES:
                raise Mismatch(name, f"has a line of more than {MOST_BYTES} bytes.")
            yield parse_json(line, f"{name}, line {number}")
