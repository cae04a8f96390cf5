"""The table of an experiment, as Markdown and as LaTeX: ASR and utility side by side, mean ± deviation over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..storage.terminal import plain
from .compare import Column, Entry, Mean
from .stages import STAGE

ACROSS = "poison_ratio"
ASR = "ASR ↓"
_WORDS = {"right": "right answers ↑", "loss": "task loss ↓"}
LEGEND = (
    "ASR: attack success rate, lower is safer. Mean ± standard deviation over seeds. Bold: better than `{baseline}` "
    "and beaten by no other, by more than chance (sign test over prompts, p < 0.05, Holm's correction). n/m: not "
    "measurable."
)


@dataclass(frozen=True)
class Cell:
    """A cell as text.

    Attributes:
        text: the number, or what stands in its place.
        bold: whether it is among the best by more than chance.
    """

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """One table: the variants down, the values of one axis across.

    Attributes:
        title: the point of the other axes, in words; empty where there are none.
        groups: heading of each group of columns.
        headings: headings of the columns of each group: ASR, the utility, and what is left of the tasks before.
        rows: variant -> the cells of each group.
    """

    title: str
    groups: tuple[str, ...]
    headings: tuple[tuple[str, ...], ...]
    rows: Mapping[str, tuple[tuple[Cell, ...], ...]]


def tables(columns: Sequence[Column]) -> list[Table]:
    """Lay out the columns: those that differ in the stage (or else the poison ratio, the last axis) side by side.

    Args:
        columns: all points of the grid, over seeds.
    """
    axes = [axis for axis, _ in columns[0].point] if columns else []
    across = next((axis for axis in (STAGE, ACROSS) if axis in axes), axes[-1] if axes else None)
    grouped: dict[str, list[Column]] = {}
    for column in columns:
        title = ", ".join(f"{axis} {label}" for axis, label in column.point if axis != across)
        grouped.setdefault(title, []).append(column)
    return [_table(title, across, group) for title, group in grouped.items()]


def _table(title: str, across: str | None, group: Sequence[Column]) -> Table:
    variants = list(dict.fromkeys(name for column in group for name in column.entries))
    return Table(
        title,
        tuple(f"{across} {dict(column.point)[across]}" if across else "" for column in group),
        tuple(_headings(column) for column in group),
        {name: tuple(_cells(column, column.entries.get(name)) for column in group) for name in variants},
    )


def _headings(column: Column) -> tuple[str, ...]:
    left = [f"{label}: {_WORDS[kind]}" for label, kind in column.earlier.items()]
    return (ASR, _WORDS[column.utility], *left)


def _cells(column: Column, entry: Entry | None) -> tuple[Cell, ...]:
    left = [(entry.earlier.get(label) or {}).get(kind) if entry else None for label, kind in column.earlier.items()]
    return (
        _cell(entry, "asr"),
        _cell(entry, column.utility),
        *(Cell("" if mean is None else _number(mean)) for mean in left),
    )


def _cell(entry: Entry | None, kind: str) -> Cell:
    if entry is None:
        return Cell("")
    mean = entry.means.get(kind)
    if mean is None:
        there = any(result.measured is not None for result in entry.results)
        return Cell("n/m" if there and kind == "asr" else "–")
    missing = f" ({entry.missing} missing)" if entry.missing else ""
    return Cell(f"{_number(mean)}{missing}", kind in entry.best)


def _number(mean: Mean) -> str:
    return f"{mean.value:.3f}" if mean.deviation is None else f"{mean.value:.3f} ± {mean.deviation:.3f}"


def markdown(tables: Sequence[Table], baseline: str) -> str:
    """Return the tables as Markdown.

    Args:
        tables: the tables.
        baseline: the variant that the others are compared with.
    """
    parts = [_markdown(table) for table in tables]
    return "\n\n".join([*parts, LEGEND.format(baseline=baseline)]) + "\n"


def _markdown(table: Table) -> str:
    pairs = zip(table.groups, table.headings, strict=True)
    headings = ["", *(f"{group}{': ' if group else ''}{what}" for group, words in pairs for what in words)]
    body = [
        [f"`{name}`", *(_bold(cell, "**{}**") for pair in row for cell in pair)] for name, row in table.rows.items()
    ]
    lines = [headings, ["---"] * len(headings), *body]
    escaped = ["| " + " | ".join(_markdown_text(cell) for cell in line) + " |" for line in lines]
    return "\n".join([*([f"### {_markdown_text(table.title)}", ""] if table.title else []), *escaped])


def latex(tables: Sequence[Table], baseline: str) -> str:
    """Return the tables as LaTeX, for the package `booktabs`.

    Args:
        tables: the tables.
        baseline: the variant that the others are compared with.
    """
    legend = _latex_text(LEGEND.format(baseline=baseline).replace("`", ""))
    return "\n".join([_latex(table, legend) for table in tables])


def _latex(table: Table, legend: str) -> str:
    widths = [len(words) for words in table.headings]
    ends = [1 + sum(widths[: place + 1]) for place in range(len(widths))]
    spans = zip(widths, table.groups, strict=True)
    head = " & ".join(["", *(rf"\multicolumn{{{n}}}{{c}}{{{_latex_text(group)}}}" for n, group in spans)])
    rules = zip(widths, ends, strict=True)
    under = "".join(rf"\cmidrule(lr){{{end - width + 1}-{end}}}" for width, end in rules)
    kinds = " & ".join(["", *(_latex_text(word) for words in table.headings for word in words)])
    body = [
        " & ".join([_latex_text(name), *(_bold(_in_latex(cell), r"\textbf{{{}}}") for pair in row for cell in pair)])
        for name, row in table.rows.items()
    ]
    lines = [head + r" \\", under, kinds + r" \\", r"\midrule", *(line + r" \\" for line in body)]
    title = f"{_latex_text(table.title)}. " if table.title else ""
    begin = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{title}{legend}}}",
        rf"\begin{{tabular}}{{l{'r' * sum(widths)}}}",
    ]
    return "\n".join([*begin, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _in_latex(cell: Cell) -> Cell:
    return Cell(_latex_text(cell.text), cell.bold)


def _bold(cell: Cell, form: str) -> str:
    return form.format(cell.text) if cell.bold else cell.text


def _markdown_text(text: str) -> str:
    return plain(text).replace("\n", " ").replace("|", r"\|")


_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "–": "--", "<": r"$<$", ">": r"$>$"},
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in plain(text))


Maker = Callable[[Sequence[Table], str], str]
#: File name -> what writes it.
FORMS: Mapping[str, Maker] = {"table.md": markdown, "table.tex": latex}
