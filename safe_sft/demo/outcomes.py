"""What the demo measured of each model, as a plot and a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation import Rate
from ..storage.terminal import console, table
from ..storage.writing import complete_file

_NONE = Rate(0, 0)


@dataclass(frozen=True)
class Outcome:
    """What a model does on the demo's three test sets.

    Attributes:
        method: `aligned` before fine-tuning, else the safety method.
        asr: attack success rate on held-out harmful requests.
        over_refusal: share of held-out harmless requests that are refused.
        accuracy: share of right answers on the task.
        task_loss: loss on held-out rows of the task, in nats per token.
        seconds: training time; 0 for `aligned`.
        degenerate: share of answers to harmful requests that say nothing.
    """

    method: str
    asr: Rate
    over_refusal: Rate
    accuracy: Rate
    task_loss: float
    seconds: float
    degenerate: Rate = _NONE

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain values for JSON."""
        rates = {name: getattr(self, name).as_dict() for name in ("asr", "over_refusal", "accuracy", "degenerate")}
        loss, seconds = round(self.task_loss, 4), round(self.seconds, 1)
        return {"method": self.method, **rates, "task_loss": loss, "seconds": seconds}


def gain_kept(outcomes: Sequence[Outcome]) -> list[float | None]:
    """Return how much of the drop of the task loss under `none` each model has, in order.

    Args:
        outcomes: one for `aligned`, and one for each method.

    Returns:
        A share for each outcome: 0 for the aligned model, 1 for `none`; None for all without `none`, or where it did
        not learn the task.
    """
    losses = {outcome.method: outcome.task_loss for outcome in outcomes}
    drop = losses["aligned"] - losses.get("none", losses["aligned"])
    return [(losses["aligned"] - o.task_loss) / drop if drop > 0 else None for o in outcomes]


def plot_outcomes(outcomes: Sequence[Outcome], path: Path) -> None:
    """Plot attack success with its interval, and task accuracy, of each model into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    names = [outcome.method for outcome in outcomes]
    colours = ["#7f7f7f" if name == "aligned" else "#c44e52" if name == "none" else "#4c72b0" for name in names]
    titles = ("Attack success rate (lower is safer)", "Task accuracy (higher is better)")
    for panel, title, rates in zip(
        panels, titles, ([o.asr for o in outcomes], [o.accuracy for o in outcomes]), strict=True
    ):
        values = [rate.value for rate in rates]
        errors = [
            [abs(rate.value - edge) for rate, edge in zip(rates, edges, strict=True)]
            for edges in zip(*(rate.interval for rate in rates), strict=True)
        ]
        bars = panel.bar(names, values, color=colours, yerr=errors, capsize=4)
        panel.bar_label(bars, labels=[_label(rate) for rate in rates], padding=3)
        panel.set_title(title, fontsize=10)
        panel.set_ylim(0, 1.12)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Fine-tuning on data with 10 % poison: 95 % intervals", fontsize=11)
    with complete_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print one table of all models on the screen."""
    names = ("ASR [95 % interval]", "degenerate", "over-refusal", "task accuracy", "task loss", "gain kept", "seconds")
    rows = table("method", *names)
    for outcome, gain in zip(outcomes, gain_kept(outcomes), strict=True):
        rates = (
            str(outcome.asr),
            f"{outcome.degenerate.value:.3f}",
            f"{outcome.over_refusal.value:.3f}",
            f"{outcome.accuracy.value:.3f}",
            f"{outcome.task_loss:.4f}",
            "–" if gain is None or outcome.method == "aligned" else f"{gain:.0%}",
        )
        rows.add_row(outcome.method, *rates, f"{outcome.seconds:.0f}")
    console().print(rows)


def _label(rate: Rate) -> str:
    return "not\nmeasurable" if rate.not_measurable else f"{rate.value:.2f}"
