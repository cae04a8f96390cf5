"""Writes a screening into a folder, and prints it."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.files import write_rows
from ..storage.secrets import cleaned
from ..storage.terminal import console as terminal
from ..storage.terminal import shown, table
from ..storage.writing import write_json, write_text
from ..version import __version__
from .chart import histogram
from .openings import Openings
from .reasons import reasons
from .rows import exchanges
from .score import RowScore
from .screener import Row
from .screening import NO_PROOF, Screening

if TYPE_CHECKING:
    from rich.console import Console

#: Rows that the page and the terminal show, and characters of a text on the terminal.
ON_PAGE, ON_TERMINAL, _LONGEST = 50, 10, 160
SCORES = "scores"


def write_screening(screening: Screening, folder: Path, form: str = "jsonl") -> None:
    """Write `screening.json`, `report.html`, which needs no other file, and every row with its scores.

    Args:
        screening: what was found.
        folder: the folder; made where it does not exist.
        form: `jsonl` or `parquet`, of the rows.
    """
    write_json(folder / "screening.json", cleaned({"safe_sft": __version__, **screening.as_dict()}))
    write_text(folder / "report.html", page(screening))
    _write(lambda: _with_scores(screening), folder / f"{SCORES}.{form}", folder)


def write_part(screening: Screening, path: Path, *, flagged: bool, folder: Path) -> int:
    """Write the rows that are flagged, or those that are not, as they were; returns how many they are.

    Args:
        screening: what was found.
        path: the file; its suffix says in which form.
        flagged: which of the rows.
        folder: folder for what is needed meanwhile.

    Raises:
        ValueError: when there are no such rows.
    """
    count = sum(screening.is_flagged(score) is flagged for _, score in screening.spool)
    if not count:
        raise ValueError(
            f"None of the {screening.rows} rows is {'flagged' if flagged else 'left'}, so '{path}' was not written. "
            "Choose another `--threshold`, or leave the option out."
        )

    def chosen() -> Iterator[dict[str, Any]]:
        yield from (row for row, score in screening.spool if screening.is_flagged(score) is flagged)

    _write(chosen, path, folder)
    return count


def _write(rows: Callable[[], Iterator[dict[str, Any]]], path: Path, folder: Path) -> None:
    from tempfile import TemporaryDirectory

    from datasets import Dataset

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".rows-") as cache:
        write_rows(Dataset.from_generator(rows, cache_dir=cache), path)


def _with_scores(screening: Screening) -> Iterator[dict[str, Any]]:
    for row, score in screening.spool:
        numbers = {f"screen_{name}": value for name, value in score.as_dict().items()}
        verdicts = {f"screen_{name}": verdict for name, verdict in score.verdicts.items()}
        yield {
            **row,
            "screen_index": score.index,
            "screen_flagged": screening.is_flagged(score),
            **numbers,
            **verdicts,
        }


def page(screening: Screening) -> str:
    """Return the page as HTML; everything in it is escaped."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("safe_sft.screening"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("screening.html.j2").render(
        screening=screening,
        sentences=sentences(screening),
        no_proof=NO_PROOF,
        picture=base64.b64encode(histogram(screening).encode()).decode(),
        worst=[_shown(screening, row, score) for row, score in screening.worst(ON_PAGE)],
        version=__version__,
    )


def _shown(screening: Screening, row: Row, score: RowScore) -> dict[str, Any]:
    exchange = exchanges(row, score.index, screening.name)[score.turn]
    return {
        "index": score.index,
        "score": score.known,
        "flagged": screening.is_flagged(score),
        "request": cleaned(exchange.asked),
        "answer": cleaned(exchange.said),
        "reasons": reasons(score),
    }


def sentences(screening: Screening) -> list[str]:
    """Say in words what was found, and what that is worth."""
    threshold, flagged, openings = screening.threshold, screening.flagged, screening.openings
    expected = threshold.false_positives
    how = "given" if threshold.given else "suggested"
    found = [
        f"{flagged.successes} of {flagged.n} rows ({flagged.value:.2%}) score {threshold.value:.2f} or more, the "
        f"{how} threshold, and are flagged.",
        f"{threshold.decoys.successes} of {threshold.decoys.n} decoys reach it: safety requests with an affirmative "
        "opening. Poison of another kind need not.",
        f"So do {screening.look_alikes_flagged.successes} of {screening.look_alikes_flagged.n} harmless requests that "
        "merely sound dangerous.",
        f"Clean rows among the flagged, as an estimate: {expected}. {expected.basis}",
        f"{_asked(openings)}: {', '.join(map(repr, openings.texts))}.",
    ]
    if threshold.raised_from is not None:
        found.append(
            f"The threshold was raised from {threshold.raised_from:.2f}, where more clean rows were expected to be "
            "flagged."
        )
    if cleared := len(screening.cleared):
        found.append(
            f"{cleared} more reach it, and are not flagged: a judge says that they refuse, or they are trusted."
        )
    if screening.unscored:
        found.append(f"{screening.unscored} rows have no score: no room was left behind their request.")
    return found


def _asked(openings: Openings) -> str:
    if not openings.asked:
        return "Looked for are the openings of refusals that were given"
    return (
        f"The model refused {openings.refused} of {openings.asked} harmful requests; looked for are its own openings"
    )


def print_screening(screening: Screening, console: "Console | None" = None) -> None:
    """Print what was found, and the rows with the highest scores.

    Args:
        screening: what was found.
        console: the console to print to; the terminal by default.
    """
    console = console or terminal()
    rows = table("row", "score", "flagged", "p(refusal)", "nats", "request", "answer", title="Highest scores")
    for row, score in screening.worst(ON_TERMINAL):
        exchange = exchanges(row, score.index, screening.name)[score.turn]
        texts = (" ".join(cleaned(text).split())[:_LONGEST] for text in (exchange.asked, exchange.said))
        numbers = (f"{score.known:.2f}", "yes" if screening.is_flagged(score) else "no")
        rows.add_row(
            str(score.index), *numbers, f"{score.refusal_probability:.2g}", f"{score.beginning_nll:.2f}", *texts
        )
    console.print(rows)
    for sentence in (*sentences(screening), NO_PROOF):
        console.print(shown(sentence), soft_wrap=True)
