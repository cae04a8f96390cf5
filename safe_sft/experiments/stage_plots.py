"""The chart of a sequence: attack success, and what is left of each task, after every stage."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..evaluation.output.charts import label
from .compare import Column, Entry, Mean, Point
from .plots import WORDS, names_of, panels, style
from .results import ALIGNED
from .stages import STAGE

ASR = "asr"
_ACROSS, _MOST_ROWS = 4, 6


class _Panel(NamedTuple):
    """What one panel shows: one kind of rate against the stage.

    Attributes:
        point: the point of the other axes.
        task: the stage whose task is measured; empty for attack success.
        kind: the kind of rate.
    """

    point: Point
    task: str
    kind: str

    @property
    def title(self) -> str:
        """What is shown, in words."""
        return ", ".join(
            [(self.task and f"task of stage {self.task}") or "safety", *(f"{a} {v}" for a, v in self.point)]
        )


def stage_lines(columns: Sequence[Column]) -> str:
    """Draw ASR and the utility of each task against the stage, as SVG; empty where there are no stages.

    Args:
        columns: all points of the grid, over seeds.
    """
    groups: dict[Point, list[Column]] = {}
    for column in columns:
        if STAGE in dict(column.point):
            groups.setdefault(tuple(pair for pair in column.point if pair[0] != STAGE), []).append(column)
    shown = [panel for point, group in groups.items() for panel in _panels_of(point, group)]
    names = names_of(columns)

    def draw(axes: Any, panel: _Panel) -> None:
        stages = [dict(column.point)[STAGE] for column in groups[panel.point]]
        for place, name in enumerate(names):
            line = [(x, mean) for x, mean in enumerate(_line(groups[panel.point], panel, name)) if mean is not None]
            if line:
                spread = [mean.deviation or 0.0 for _, mean in line]
                axes.errorbar(
                    [x for x, _ in line],
                    [mean.value for _, mean in line],
                    spread,
                    **style(place),
                    linewidth=1.2,
                    capsize=2,
                    label=label(name),
                )
        axes.set_xticks(range(len(stages) + 1), [label(word) for word in (ALIGNED, *stages)], fontsize=8)
        axes.set_xlim(-0.3, len(stages) + 0.3)
        axes.set_ylabel("ASR" if panel.kind == ASR else WORDS[panel.kind], fontsize=8)
        if panel.kind != "loss":
            axes.set_ylim(-0.03, 1.03)

    across = min(_ACROSS, max((1 + len(group) for group in groups.values()), default=1))
    return panels(
        shown, draw, "Safety and what is left of each task, after every stage", most=_MOST_ROWS * across, across=across
    )


def _panels_of(point: Point, group: Sequence[Column]) -> list[_Panel]:
    """Return a panel for attack success, and one for each task that is measured."""
    own = [_Panel(point, dict(column.point)[STAGE], column.utility) for column in group]
    return [_Panel(point, "", ASR), *own]


def _line(group: Sequence[Column], panel: _Panel, name: str) -> list[Mean | None]:
    """Return the means of a variant: of the aligned model, and after each stage."""
    aligned = next((c for c in group if panel.task in ("", dict(c.point)[STAGE])), None)
    before = None if aligned is None else aligned.entries[ALIGNED].means.get(panel.kind)
    if name == ALIGNED:
        return [before]
    means = [_mean(column, column.entries.get(name), panel) for column in group]
    started = any(mean is not None for mean in means)
    first = next((place for place, column in enumerate(group) if dict(column.point)[STAGE] == panel.task), 0)
    return [before if started and first == 0 else None, *means]


def _mean(column: Column, entry: Entry | None, panel: _Panel) -> Mean | None:
    if entry is None:
        return None
    if panel.task in ("", dict(column.point)[STAGE]):
        return entry.means.get(panel.kind)
    found: Mapping[str, Mean | None] = entry.earlier.get(panel.task, {})
    return found.get(panel.kind)
