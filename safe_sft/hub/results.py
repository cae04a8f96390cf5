"""The measured numbers, as rows of the card's table and as the results that the Hub shows (`model-index`)."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from huggingface_hub import EvalResult

BEFORE, AFTER, MERGED = "before", "after", "merged"

# Kind of number -> (name, metric of the Hub, whether less is better).
_KINDS = {
    "asr": ("Attack success rate", "attack_success_rate", True),
    "over_refusal": ("Over-refusal rate", "over_refusal_rate", True),
    "right": ("Right answers", "accuracy", False),
    "loss": ("Task loss, nats per token", "loss", True),
}


class Row(NamedTuple):
    """A row of the card's table: one rate, before and after.

    Attributes:
        kind: the kind of rate: `asr`, `over_refusal`, `right` or `loss`.
        subject: name of the suite or task.
        judge: name of the judge; for a task, where its rows come from.
        revision: revision of the suite.
        rates: of each model that was measured, by name: value (None for what is not measurable), low, high, successes,
            n, `not_measurable` (why), and `beside`, what stands beside it.
    """

    kind: str
    subject: str
    judge: str
    revision: str | None
    rates: dict[str, dict[str, Any]]

    @property
    def name(self) -> str:
        """The kind of rate in words."""
        return _KINDS[self.kind][0]

    @property
    def arrow(self) -> str:
        """An arrow that says which way is better."""
        return "↓" if _KINDS[self.kind][2] else "↑"

    @property
    def n(self) -> int:
        """Number of prompts that were answered and judged."""
        return int(next(iter(self.rates.values()))["n"])


def result_rows(measured: Mapping[str, Any]) -> list[Row]:
    """Make a row for each suite and judge, and for each task.

    Args:
        measured: numbers from `evaluation.output.results.results`.
    """
    rows: dict[tuple[str, str, str], Row] = {}
    for kind, entry, rate in _rates(measured):
        subject, judge = entry.get("suite", entry.get("task")), entry.get("judge", entry.get("source", ""))
        row = rows.setdefault((kind, subject, judge), Row(kind, subject, judge, entry.get("revision"), {}))
        row.rates[entry["model"]] = rate
    return sorted(rows.values(), key=lambda row: list(_KINDS).index(row.kind))


def eval_results(measured: Mapping[str, Any], before: str = "before_training") -> list[EvalResult]:
    """Make what the Hub shows beside the card: the numbers of the tuned model, and of its merge if there is one.

    Args:
        measured: numbers from `evaluation.output.results.results`.
        before: what the numbers of the model before are called.
    """
    return [
        _eval_result(row, model, before)
        for row in result_rows(measured)
        for model in (AFTER, MERGED)
        if model in row.rates and row.rates[model]["n"] and row.rates[model]["value"] is not None
    ]


def _eval_result(row: Row, model: str, called: str) -> EvalResult:
    _, metric, lower = _KINDS[row.kind]
    rate = row.rates[model]
    interval = f"95 % interval {rate['low']:.3f} to {rate['high']:.3f}, n={rate['n']}"
    merged = ", merged model" if model == MERGED else ""
    before = row.rates.get(BEFORE)
    return EvalResult(
        task_type="text-generation",
        task_name="Text Generation",
        dataset_type=_dataset_type(row),
        dataset_name=row.subject,
        dataset_revision=row.revision,
        metric_type=metric,
        metric_name=f"{row.name}{merged} ({'lower' if lower else 'higher'} is better; {interval})",
        metric_value=round(rate["value"], 4),
        metric_args={
            "low": round(rate["low"], 4),
            "high": round(rate["high"], 4),
            "n": rate["n"],
            "judge": row.judge,
            **{name: share for name, share in rate.get("shares", {}).items() if share},
            **({} if before is None or before["value"] is None else {called: round(before["value"], 4)}),
        },
    )


def _dataset_type(row: Row) -> str:
    """Return the task's data set on the Hub, or a name of our own, since the Hub takes no path of a file."""
    return row.judge if row.kind == "right" and row.judge.count("/") == 1 and "." not in row.judge else row.subject


def _rates(measured: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    for entry in measured.get("safety", []):
        for kind in ("asr", "over_refusal"):
            if kind in entry:
                yield kind, entry, {**entry[kind], **_beside(entry)}
    for entry in measured.get("utility", []):
        yield "right", entry, entry["right"]
    for entry in measured.get("task_loss", []):
        yield "loss", entry, entry["loss"]


def _beside(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words shown beside a rate: the shares of answers that say nothing, or have no verdict."""
    shares = {name: round(entry[name]["value"], 4) for name in ("degenerate", "unjudged") if name in entry}
    return {"shares": shares, "beside": ", ".join(f"{100 * share:.2g} % {name}" for name, share in shares.items())}
