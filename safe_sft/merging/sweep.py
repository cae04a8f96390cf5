"""Helps to choose the weight of a merge: safety and utility at each weight, as table, plot and file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data import builtin_prompts, load_rows, prompt_token_ids
from ..data.forms import completion_of
from ..evaluation import Rate, measure_asr
from ..evaluation.output.charts import drawing
from ..evaluation.report import MOST
from ..evaluation.thoughts import split_thought
from ..storage.secrets import cleaned
from ..storage.terminal import shown, table
from ..storage.writing import complete_file, write_json
from .loaded import LoadedMerge
from .methods import merge_method
from .weights import MergeWeights

if TYPE_CHECKING:
    from rich.table import Table

SWEEP_FILE = "sweep.json"
CURVE_FILE = "sweep.png"


class Scores(NamedTuple):
    """The measured numbers of one merge.

    Attributes:
        asr: attack success rate.
        degenerate: share of answers to attacks that say nothing; high values make a low ASR worthless.
        accuracy: share of right answers on the task.
        unjudged: share of answers to attacks without a verdict: those that end inside a thought.
    """

    asr: Rate
    degenerate: Rate
    accuracy: Rate
    unjudged: Rate = Rate(0, 0)

    @property
    def measurable(self) -> bool:
        """Whether the ASR is a number, because most answers can be judged."""
        return not self.asr.not_measurable and max(self.degenerate.value, self.unjudged.value) <= MOST


class SweepPoint(NamedTuple):
    """The scores at one weight."""

    weight: float
    scores: Scores


@dataclass(frozen=True)
class Sweep:
    """The scores at all weights.

    Attributes:
        points: the scores at each weight, in the order of the weights.
        max_asr: bound on the ASR, or None.
        number: what the weights are: `weight`, or `threshold` of a merge that is swept over one.
    """

    points: tuple[SweepPoint, ...]
    max_asr: float | None = None
    number: str = "weight"

    @property
    def selected(self) -> SweepPoint | None:
        """The most accurate point whose ASR (the point estimate) is within the bound; of equals, the safest.

        Points whose answers are mostly degenerate or unjudged have no ASR, and are never selected. None without a
        bound, and when no weight keeps it.
        """
        if self.max_asr is None:
            return None
        measured = [point for point in self.points if point.scores.measurable]
        within = [point for point in measured if point.scores.asr.value <= self.max_asr]
        order = [(p.scores.accuracy.value, -p.scores.asr.value, -p.weight) for p in within]
        return within[order.index(max(order))] if within else None

    @property
    def unmeasured(self) -> str:
        """Return a sentence on the weights that have no ASR, followed by a space; empty where all have one."""
        dead = [f"{point.weight:g}" for point in self.points if not point.scores.measurable]
        return f"Not measurable, for most answers say nothing or have no verdict: {', '.join(dead)}. " if dead else ""

    def table(self) -> "Table":
        """Return a table for the terminal, with the selected weight marked."""
        made = table(title=f"Merge {self.number}s")
        for heading in (self.number, "ASR [95 %]", "degenerate", "unjudged", "task accuracy [95 %]", ""):
            made.add_column(shown(heading), no_wrap=True)
        for point in self.points:
            asr, degenerate, accuracy, unjudged = point.scores
            mark = "◀" if point is self.selected else ""
            cells = (f"{point.weight:g}", str(asr), _share(degenerate), _share(unjudged), str(accuracy), mark)
            made.add_row(*cells, style="bold" if mark else None)
        return made

    def save(self, folder: Path, arguments: dict[str, Any]) -> None:
        """Write `sweep.json` and the ASR–utility curve, `sweep.png`.

        Args:
            folder: folder to write to; it is made where it is missing.
            arguments: what was merged and measured, as plain JSON values.
        """
        write_json(folder / SWEEP_FILE, {**cleaned(arguments), **self.as_dict()})
        with drawing():
            self._draw(folder / CURVE_FILE, str(arguments.get("method", "")))

    def as_dict(self) -> dict[str, Any]:
        """Return the bound, what it selected, and the scores at each weight, as plain JSON values."""
        points = [
            {self.number: p.weight, **{name: share.as_dict() for name, share in p.scores._asdict().items()}}
            for p in self.points
        ]
        selected = None if self.selected is None else self.selected.weight
        return {"number": self.number, "max_asr": self.max_asr, "selected": selected, "points": points}

    def _draw(self, path: Path, title: str) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4.5), layout="constrained")
        axes = figure.subplots()
        shown = [point for point in self.points if point.scores.measurable]
        shares = [(point.scores.asr, point.scores.accuracy) for point in shown]
        x, y = ([pair[i].value for pair in shares] for i in (0, 1))
        errors = [[_error(pair[i]) for pair in shares] for i in (0, 1)]
        xerr, yerr = ([[e[side] for e in axis] for side in (0, 1)] for axis in errors)
        axes.errorbar(x, y, xerr=xerr, yerr=yerr, marker="o", linewidth=1, elinewidth=0.5, capsize=2)
        for point, a, b in zip(shown, x, y, strict=True):
            axes.annotate(_label(point), (a, b), xytext=(4, 4), textcoords="offset points", fontsize=8)
        if self.max_asr is not None:
            axes.axvline(self.max_asr, linestyle="--", color="grey", label=f"ASR ≤ {self.max_asr:g}")
        if self.selected is not None:
            asr, accuracy = self.selected.scores.asr, self.selected.scores.accuracy
            label = f"selected: {self.selected.weight:g}"
            axes.plot(asr.value, accuracy.value, "o", markersize=12, markerfacecolor="none", color="C3", label=label)
        if self.max_asr is not None:
            axes.legend()
        dead = ", ".join(f"{point.weight:g}" for point in self.points if not point.scores.measurable)
        without = f"\nnot measurable, most answers say nothing: {dead}" if dead else ""
        axes.set(xlabel=f"attack success rate (95 % intervals){without}", ylabel="task accuracy", title=title)
        with complete_file(path) as temporary:
            figure.savefig(temporary, dpi=150, format="png")


class SweepData(NamedTuple):
    """The data that every merge is measured on.

    Attributes:
        requests: harmful requests.
        task: rows of `prompt` and `completion`; an answer is right if it starts with the completion.
    """

    requests: list[Any]
    task: list[Mapping[str, Any]]

    @classmethod
    def read(cls, task: str, requests: str | None = None) -> "SweepData":
        """Read the task's rows and the harmful requests.

        Args:
            task: file or Hub name of the task's rows.
            requests: file or Hub name of requests, in a column `prompt`; None takes the built-in held-out ones.

        Raises:
            FileNotFoundError: when a file does not exist.
            ValueError: when a column is missing.
        """
        rows = _rows(task, "prompt", "completion")
        if requests is None:
            return cls([prompt.prompt for prompt in builtin_prompts("harmful_heldout")], rows)
        return cls([row["prompt"] for row in _rows(requests, "prompt")], rows)


def _rows(name: str, *columns: str) -> list[Mapping[str, Any]]:
    rows = load_rows(name, split="train")
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise ValueError(f"'{name}' has the columns {rows.column_names}. It needs one named `{missing[0]}`.")
    return list(rows)


def read_weights(text: str, method: str) -> list[float]:
    """Read the numbers of a list such as `0,0.5,1`.

    Args:
        text: numbers with commas between them.
        method: name of the merge method, which says what a weight may be.

    Raises:
        ValueError: when a weight is no number, out of range, or there twice.
    """
    weights = []
    for part in text.split(","):
        weight = MergeWeights.read(part.strip(), method)
        if weight.patterns or weight.default is None:
            raise ValueError(
                f"`--sweep` compares numbers, and `--{merge_method(method).number} {part}` is a file of patterns. "
                "Give a list."
            )
        if weight.default in weights:
            raise ValueError(
                f"`--{merge_method(method).number} {text}` has {weight.default:g} twice, which would be measured "
                "twice. Keep one."
            )
        weights.append(weight.default)
    return weights


def run_sweep(
    merged: LoadedMerge,
    weights: Sequence[float],
    evaluate: Callable[[LoadedMerge], Scores],
    max_asr: float | None = None,
    number: str = "weight",
) -> Sweep:
    """Measure the loaded merge at each weight.

    Args:
        merged: the loaded merge, from `load_merge`.
        weights: the weights to measure, each in the range of the method.
        evaluate: function that measures `merged.model` as it is.
        max_asr: most attack success that the selected weight may have.
        number: what the weights are, `weight` or `threshold`.
    """

    def points() -> Iterator[SweepPoint]:
        for weight in weights:
            merged.set_weight(weight)
            yield SweepPoint(weight, evaluate(merged))

    return Sweep(tuple(points()), max_asr, number)


def _error(share: Rate) -> tuple[float, float]:
    """Return the lengths of the two error bars."""
    low, high = share.interval
    return share.value - low, high - share.value


def _label(point: SweepPoint) -> str:
    """Return the weight's label, with the shares of degenerate and unjudged answers, where there are any."""
    shares = {"degenerate": point.scores.degenerate.value, "unjudged": point.scores.unjudged.value}
    return ", ".join([f"{point.weight:g}", *(f"{share:.0%} {name}" for name, share in shares.items() if share)])


def _share(rate: Rate) -> str:
    return f"{rate.value:.3f}" if rate.n else "–"


def measure(merged: LoadedMerge, data: SweepData, *, max_new_tokens: int, batch_size: int) -> Scores:
    """Measure attack success and task accuracy of a merge at its present weight.

    Args:
        merged: the loaded merge, from `load_merge`.
        data: harmful requests, and the task.
        max_new_tokens: longest answer to a request, in tokens.
        batch_size: prompts answered at a time.
    """
    report = measure_asr(
        merged.model, merged.tokenizer, data.requests, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    right = right_answers(merged, data.task, batch_size)
    return Scores(report.asr, report.degenerate, Rate(right, len(data.task)), report.unjudged)


def right_answers(merged: LoadedMerge, task: Sequence[Mapping[str, Any]], batch_size: int) -> int:
    """Count the greedy answers that start with the completion of their row.

    Args:
        merged: the loaded merge, from `load_merge`.
        task: rows of `prompt` and `completion`.
        batch_size: prompts answered at a time.
    """
    from ..models.generation import generate

    tokenizer = merged.tokenizer
    wanted = [_text(row["completion"]) for row in task]
    # No longer than the longest completion, with room for a space or a line break before it.
    longest = max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in wanted) + 2
    answers = generate(
        merged.model,
        tokenizer,
        [prompt_token_ids(tokenizer, row["prompt"]) for row in task],
        max_new_tokens=longest,
        batch_size=batch_size,
        description="Answering the task",
    )
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    said = [split_thought(text).answer or "" for text in texts]
    return sum(text.strip().startswith(answer) for text, answer in zip(said, wanted, strict=True))


def _text(completion: str | list[dict]) -> str:
    return completion_of({"completion": completion}).strip()
