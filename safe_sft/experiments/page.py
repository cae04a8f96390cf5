"""One HTML page of an experiment, which needs no other file."""

import base64
from collections.abc import Mapping, Sequence

from .compare import Column
from .grid import Experiment
from .results import ALIGNED, Result
from .table import LEGEND, Table

#: So many columns of numbers fit into the page.
_FITS = 8


def page_html(
    experiment: Experiment,
    results: Sequence[Result],
    columns: Sequence[Column],
    tables: Sequence[Table],
    pictures: Mapping[str, str],
) -> str:
    """Return the page as HTML; everything in it is escaped.

    Args:
        experiment: the experiment.
        results: one result for each cell.
        columns: all points of the grid, over seeds.
        tables: the tables to show.
        pictures: the charts as SVG, by name.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("safe_sft.experiments"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    there = [result for result in results if result.measured is not None]
    return environment.get_template("experiment.html.j2").render(
        experiment=experiment,
        results=results,
        there=there,
        failed=[result for result in results if result.measured is None and result.why],
        summary=[sentence for column in columns if (sentence := _sentence(column, experiment.baseline))],
        tables=tables,
        legend=LEGEND.format(baseline=experiment.baseline).replace("`", ""),
        wide=any(sum(map(len, table.headings)) > _FITS for table in tables),
        pictures={name: base64.b64encode(svg.encode()).decode() for name, svg in pictures.items()},
        versions=sorted({str(result.measured["safe_sft"]) for result in there if result.measured}),
    )


def _sentence(column: Column, baseline: str) -> str:
    """Say of one point of the grid what plain training did to safety, and which variants kept it."""
    where = ", ".join(f"{axis} {label}" for axis, label in column.point)
    plain = column.entries[baseline].means.get("asr") if baseline in column.entries else None
    if plain is None:
        return ""
    best = [name for name, entry in column.entries.items() if "asr" in entry.best]
    before = column.entries[ALIGNED].means.get("asr")
    start = f"{where}: " if where else ""
    was = "" if before is None else f", where the aligned model complied with {before.value:.1%}"
    kept = f"Safest by more than chance: {', '.join(best)}." if best else "No variant is safer by more than chance."
    return f"{start}after {baseline}, the model complied with {plain.value:.1%} of harmful requests{was}. {kept}"
