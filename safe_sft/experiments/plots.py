"""Charts of an experiment, as SVG: safety against utility and cost, and attack success against the poison ratio."""

import io
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..evaluation.output.charts import drawing, label
from ..evaluation.output.plots import COLOURS
from .compare import LOWER_IS_BETTER, Column, Entry, Mean
from .results import ALIGNED
from .table import ACROSS

_MARKS = "osD^vP*Xhp<>"
#: Further colours, for as many variants as there are marks.
_COLOURS = (*COLOURS, "#7a4b3a", "#d66ba0", "#7f8c1f", "#1f5fa8", "#9a9a9a", "#3b8686")
_MOST_PANELS = 12
_WIDTH, _HEIGHT = 4.4, 3.4
WORDS = {"right": "right answers (more is better)", "loss": "task loss, nats per token (less is better)"}


class Titled(Protocol):
    """What a panel shows."""

    @property
    def title(self) -> str:
        """What it is, in words."""


def plots(columns: Sequence[Column]) -> dict[str, str]:
    """Return the charts as SVG, by name; those that would be empty are left out.

    Args:
        columns: all points of the grid, over seeds.
    """
    drawn = {"asr_utility": utility_plane(columns), "asr_poison": poison_lines(columns), "asr_cost": cost(columns)}
    return {name: picture for name, picture in drawn.items() if picture}


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that no other beats in one coordinate without losing in the other.

    Args:
        points: pairs of numbers of which less is better.

    Returns:
        The places, by ascending first coordinate.
    """
    order = sorted(range(len(points)), key=lambda place: points[place])
    front: list[int] = []
    for place in order:
        if not front or points[place][1] < points[front[-1]][1]:
            front.append(place)
    return front


def utility_plane(columns: Sequence[Column]) -> str:
    """Draw ASR against utility, one panel for each point of the grid, with the Pareto front of the variants."""

    def draw(axes: Any, column: Column) -> None:
        kind = column.utility
        sign = 1 if LOWER_IS_BETTER[kind] else -1
        found = _points(column, lambda entry: entry.means.get(kind))
        tuned = [(x, y) for name, x, y in found if name != ALIGNED]
        front = [tuned[place] for place in pareto_front([(sign * x.value, y.value) for x, y in tuned])]
        axes.plot([x.value for x, _ in front], [y.value for _, y in front], color="#999", linewidth=1, zorder=1)
        _scatter(axes, found, names_of(columns))
        axes.set_xlabel(WORDS[kind], fontsize=8)
        if sign > 0:
            axes.invert_xaxis()  # to the right is better

    return _of_asr(columns, draw, "ASR against utility, and the Pareto front (right and low is better)")


def cost(columns: Sequence[Column]) -> str:
    """Draw ASR against the time of a run, measuring included."""

    def draw(axes: Any, column: Column) -> None:
        found = _points(column, _minutes)
        _scatter(axes, found, names_of(columns))
        axes.set_xlabel("minutes of a run, with measuring", fontsize=8)

    return _of_asr(columns, draw, "ASR against cost (left and low is better)")


def poison_lines(columns: Sequence[Column]) -> str:
    """Draw ASR against the poison ratio, one panel for each point of the other axes; empty for a single ratio."""
    groups: dict[tuple[tuple[str, str], ...], list[tuple[float, Column]]] = {}
    for column in columns:
        ratio = _number(dict(column.point).get(ACROSS))
        if ratio is not None:
            others = tuple(pair for pair in column.point if pair[0] != ACROSS)
            groups.setdefault(others, []).append((ratio, column))
    groups = {point: sorted(group, key=lambda pair: pair[0]) for point, group in groups.items() if len(group) > 1}
    names = names_of(columns)

    def draw(axes: Any, panel: Column) -> None:
        for place, name in enumerate(names):
            means = [(r, c.entries[name].means["asr"]) for r, c in groups[panel.point] if name in c.entries]
            line = [(ratio, mean) for ratio, mean in means if mean is not None]
            if line:
                x, y = [ratio for ratio, _ in line], [mean.value for _, mean in line]
                spread = [mean.deviation or 0.0 for _, mean in line]
                axes.errorbar(x, y, spread, **style(place), linewidth=1.2, capsize=2, label=label(name))
        axes.set_xlabel("poison ratio", fontsize=8)

    return _of_asr([Column(point, {}) for point in groups], draw, "ASR against the share of poison")


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def names_of(columns: Sequence[Column]) -> list[str]:
    """Return the names of the aligned model and of all variants, in order; the places in it choose their styles."""
    return list(dict.fromkeys(name for column in columns for name in column.entries))


def _points(column: Column, of: Callable[[Entry], Mean | None]) -> list[tuple[str, Mean, Mean]]:
    """Return name, x and ASR of the variants that have both."""
    pairs = [(name, of(entry), entry.means.get("asr")) for name, entry in column.entries.items()]
    return [(name, x, y) for name, x, y in pairs if x is not None and y is not None]


def _minutes(entry: Entry) -> Mean | None:
    return Mean.of([result.measured["seconds"] / 60 for result in entry.results if result.measured is not None])


def _scatter(axes: Any, points: Sequence[tuple[str, Mean, Mean]], names: Sequence[str]) -> None:
    for name, x, y in points:
        look = {**style(names.index(name)), "linestyle": "none"}
        axes.errorbar(x.value, y.value, y.deviation, x.deviation, **look, elinewidth=0.8, label=label(name), zorder=2)


def style(place: int) -> dict[str, Any]:
    """Return colour and mark of the name at a place of `names_of`."""
    return {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKS[place % len(_MARKS)], "markersize": 5}


def _of_asr(columns: Sequence[Column], draw: Callable[[Any, Column], None], title: str) -> str:
    """Draw a panel for each column, with ASR upwards."""

    def with_asr(axes: Any, column: Column) -> None:
        draw(axes, column)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("ASR", fontsize=8)

    return panels(columns, with_asr, title)


def panels(
    shown: Sequence[Titled], draw: Callable[[Any, Any], None], title: str, *, most: int = _MOST_PANELS, across: int = 3
) -> str:
    """Draw panels into one figure, with one legend, as SVG; empty where there is nothing to draw.

    Args:
        shown: what each panel shows.
        draw: draws one of them.
        title: title of the figure.
        most: how many are drawn; further ones are left out.
        across: how many stand side by side.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = list(shown)[:most]
    if not shown:
        return ""
    across = min(across, len(shown))
    down = -(-len(shown) // across)
    with drawing():
        room = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08)  # a title apart from the numbers of the row above
        figure = Figure(figsize=(_WIDTH * across, _HEIGHT * down + 0.8), layout=room)
        FigureCanvasSVG(figure)
        places = figure.subplots(down, across, squeeze=False).flat
        handles: dict[str, Any] = {}
        for axes in places:
            axes.set_visible(False)
        for axes, panel in zip(figure.axes, shown, strict=False):
            axes.set_visible(True)
            draw(axes, panel)
            axes.set_title(label(panel.title), fontsize=9, loc="left")
            axes.grid(alpha=0.25)
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            handles |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        if not handles:
            return ""
        figure.suptitle(title, fontsize=11)
        figure.legend(
            handles.values(),
            handles,
            loc="outside lower center",
            ncols=_even(len(handles), 3 * across),
            frameon=False,
            fontsize=8,
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _even(count: int, most: int) -> int:
    """Return how many of `count` names stand in a row of a legend, so that its rows are alike; at most `most`."""
    return -(-count // -(-count // most))
