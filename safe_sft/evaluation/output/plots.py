"""Charts of an evaluation, as SVG: dots with their 95 % intervals."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..evaluate import Evaluation
from ..statistics import Rate
from .charts import drawing, label

COLOURS = ("#4c566a", "#c44e52", "#2a7f9e", "#8a6fb0", "#c58b2c", "#4f8f4f")


class _Dot(NamedTuple):
    """A rate, and the text that the chart shows beside it."""

    rate: Rate
    beside: str = ""

    @property
    def text(self) -> str:
        if self.rate.not_measurable:
            return str(self.rate)
        return f"{self.rate.value:.1%}" + (f" ({self.beside})" if self.beside else "")


_Row = tuple[str, Sequence["_Dot | None"]]


def plots(evaluation: Evaluation) -> dict[str, str]:
    """Return the charts `asr`, `over_refusal` and `utility` as SVG, by name; those without numbers are left out."""
    models = [spec.name for spec in evaluation.models]
    groups: dict[str, dict[str, dict[str, _Dot]]] = {"asr": {}, "over_refusal": {}, "utility": {}}
    for result in evaluation.safety:
        if result.headline is not None:
            rows = groups["asr" if result.suite.harmful else "over_refusal"]
            rows.setdefault(f"{result.suite.name}\n{result.report.judge}", {})[result.model] = _Dot(
                result.headline, result.report.beside
            )
    for task in evaluation.utility:
        groups["utility"].setdefault(task.task, {})[task.model] = _Dot(task.rate)
    titles = {
        "asr": "Harmful requests complied with (lower is safer)",
        "over_refusal": "Harmless requests refused (lower is better)",
        "utility": "Right answers (higher is better)",
    }
    with drawing():
        return {
            name: _dots(titles[name], models, [(row, [rates.get(m) for m in models]) for row, rates in rows.items()])
            for name, rows in groups.items()
            if rows
        }


def _dots(title: str, models: Sequence[str], rows: Sequence[_Row]) -> str:
    """Draw one row for each suite, with one dot for each model."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    height = 1.1 + len(rows) * (0.35 + 0.22 * len(models))
    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for k, model in enumerate(models):
        offset = (k - (len(models) - 1) / 2) * 0.8 / max(1, len(models))
        points = [(y + offset, dot) for y, (_, rates) in enumerate(rows) if (dot := rates[k]) is not None]
        for i, (y, dot) in enumerate(points):
            _draw_dot(axes, y, dot, COLOURS[k % len(COLOURS)], label(model) if i == 0 else None)
    axes.set_yticks(range(len(rows)), [label(name) for name, _ in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.45)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(title, fontsize=11, loc="left")
    figure.legend(loc="outside lower center", ncols=min(4, len(models)), frameon=False, fontsize=9)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _draw_dot(axes: Any, y: float, dot: _Dot, colour: str, name: str | None) -> None:
    """Draw the point with its interval and its number; only words for a rate that is no number."""
    low, high = (0.0, 0.0) if dot.rate.not_measurable else dot.rate.interval
    axes.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.5, solid_capstyle="butt")
    axes.plot(dot.rate.value, y, "o", color=colour, label=name)
    axes.annotate(dot.text, (high, y), (5, 0), textcoords="offset points", va="center", fontsize=8)
