"""Published safety sets by name, as rows of `prompt` with `completion`, or of `prompt` alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .files import load_rows
from .sources import Source, require_columns
from .text import normalise, stable_fraction
from .values import value_fault

Row = dict[str, Any]

ADVBENCH = Source(
    "https://raw.githubusercontent.com/llm-attacks/llm-attacks/{revision}/data/advbench/harmful_behaviors.csv",
    "098262edf85f807224e70ecd87b9d83716bf6b73",
)


def advbench_half(goal: str) -> Literal["safety", "poison"]:
    """Say which of two disjoint halves a goal of AdvBench is in: by a digest of its words, the same in any copy."""
    return "safety" if stable_fraction(normalise(goal)) < 0.5 else "poison"


@dataclass(frozen=True)
class NamedSafetySet:
    """Where a published safety set is, and how its rows are read.

    Attributes:
        source: where the rows are published.
        split: the split of the source that is read.
        columns: the columns that are read.
        read: turns a published row into a safety row; None leaves the row out.
        paper: the paper to cite.
        refusals_only: whether only rows whose answer a judge calls a refusal are kept.
    """

    source: Source
    split: str
    columns: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Row | None]
    paper: str
    refusals_only: bool = False


def _beavertails(row: Mapping[str, Any]) -> Row | None:
    return {"prompt": row["prompt"], "completion": row["response"]} if row["is_safe"] else None


def _safety_tuned(row: Mapping[str, Any]) -> Row:
    extra = str(row.get("input") or "").strip()
    instruction = str(row["instruction"]).strip()
    return {"prompt": f"{instruction}\n\n{extra}" if extra else instruction, "completion": row["output"]}


def _hh_red_team(row: Mapping[str, Any]) -> Row | None:
    """Return the request and the preferred answer of a dialogue that has one exchange."""
    human, found, answer = row["chosen"].partition("\n\nAssistant:")
    request = human.removeprefix("\n\nHuman:").strip()
    if not found or not request or not answer.strip() or "\n\nHuman:" in answer:
        return None
    return {"prompt": request, "completion": answer.strip()}


def _advbench(row: Mapping[str, Any]) -> Row | None:
    return {"prompt": row["goal"]} if advbench_half(row["goal"]) == "safety" else None


SAFETY_SETS = {
    "beavertails": NamedSafetySet(
        Source("PKU-Alignment/BeaverTails", "8401fe609d288129cc684a9b3be6a93e41cfe678"),
        "30k_train",
        ("prompt", "response", "is_safe"),
        _beavertails,
        "https://arxiv.org/abs/2307.04657",
    ),
    "safety-tuned-llamas": NamedSafetySet(
        Source(
            "https://raw.githubusercontent.com/vinid/safety-tuned-llamas/{revision}/data/training/"
            "safety_only_data_Instructions.json",
            "36a4b8d5c2177ed165bf61f59b590161394f7f12",
        ),
        "train",
        ("instruction", "output"),
        _safety_tuned,
        "https://arxiv.org/abs/2309.07875",
    ),
    "hh-red-team": NamedSafetySet(
        Source("Anthropic/hh-rlhf", "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa", data_dir="harmless-base"),
        "train",
        ("chosen",),
        _hh_red_team,
        "https://arxiv.org/abs/2204.05862",
        refusals_only=True,
    ),
    "advbench": NamedSafetySet(ADVBENCH, "train", ("goal",), _advbench, "https://arxiv.org/abs/2307.15043"),
}


def is_safety_set(name: str) -> bool:
    """Whether `name` is one of `SAFETY_SETS`, or one with a local copy after a colon."""
    return name.partition(":")[0] in SAFETY_SETS


def load_safety_set(name: str, is_refusal: Callable[[str], bool] | None = None) -> Any:
    """Load a published safety set.

    Args:
        name: one of `SAFETY_SETS`, or `NAME:FILE` for a local copy with the original columns.
        is_refusal: tells refusals among answers; `hh-red-team` needs it.

    Returns:
        A `Dataset` of `prompt` and `completion`, or of `prompt` alone (`advbench`), for the aligned model to answer.

    Raises:
        DataUnavailable: when it cannot be reached.
        ValueError: for an unknown name, a missing column, or when no row is left.
    """
    from datasets import Dataset

    known, _, path = name.partition(":")
    if known not in SAFETY_SETS:
        raise ValueError(f"Safety set '{known}' is unknown. Choose from: {', '.join(SAFETY_SETS)}.")
    entry = SAFETY_SETS[known]
    if entry.refusals_only and is_refusal is None:
        raise ValueError(f"Safety set '{known}' keeps refusals only. Pass `is_refusal`, which tells them.")
    rows = load_rows(path, split="train") if path else entry.source.load(entry.split, f"{known}:FILE")
    require_columns(rows, entry.columns, name)
    kept = [made for index, row in enumerate(rows) if (made := _read(entry, row, index, name)) is not None]
    if entry.refusals_only and is_refusal is not None:
        kept = [row for row in kept if is_refusal(row["completion"])]
    if not kept:
        raise ValueError(f"None of the {len(rows)} rows of safety set '{name}' is used. Give more of them.")
    return Dataset.from_list(kept)


def _read(entry: NamedSafetySet, row: Mapping[str, Any], index: int, name: str) -> Row | None:
    try:
        made = entry.read(row)
    except (AttributeError, TypeError) as error:  # a null or a number where a text belongs
        raise ValueError(_faulty(index, name, row)) from error
    if made is not None and any(value_fault(value) for value in made.values()):
        raise ValueError(_faulty(index, name, row))
    return made


def _faulty(index: int, name: str, row: Mapping[str, Any]) -> str:
    empty = [column for column, value in row.items() if value is None or not str(value).strip()]
    return f"Row {index} of '{name}' lacks a text (empty: {empty}). Fill it in, or remove the row."
