"""What was measured, as evidence: every rate with its counts, interval, judge, and the weights that it is of."""

from collections.abc import Iterator, Mapping
from typing import Any

from .plain import portable

#: Number -> the verdict that it counts.
COUNTED = {"asr": "complied", "over_refusal": "refused"}
_RATE = ("value", "low", "high", "successes", "n", "not_measurable")
_ABOUT = ("source", "revision", "judge", "judge_revision")


def measured_rates(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make a row of every rate of an evaluation.

    Args:
        measured: numbers from `evaluation.output.results.results`.
    """
    return [portable(row) for row in _rows(measured)]


def measured_models(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return name and weights of every model of an evaluation.

    Args:
        measured: numbers from `evaluation.output.results.results`.
    """
    return [{"name": spec["name"], "weights": spec.get("weights")} for spec in measured.get("models", ())]


def _rows(measured: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in measured.get("safety", ()):
        for number in COUNTED:
            if number in entry:
                yield _row(number, entry["suite"], entry, entry[number])
    for entry in measured.get("utility", ()):
        yield _row("right", entry["task"], entry, entry["right"])
    for entry in measured.get("task_loss", ()):
        yield _row("loss", entry["task"], entry, entry["loss"])


def _row(number: str, subject: str, entry: Mapping[str, Any], rate: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: entry[name] for name in _ABOUT if name in entry}
    return {
        "number": number,
        "model": entry["model"],
        "subject": subject,
        **about,
        **{key: rate[key] for key in _RATE if key in rate},
    }
