"""Utility: tasks whose answers are right or wrong, so that a model cannot look safe by being useless."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...data.files import load_rows
from ...data.forms import completion_of
from ...data.sources import DataUnavailable, require_columns
from ...data.subset import evenly_spread
from ...data.tasks import TASKS, Task
from ...data.values import require_texts
from ..statistics import PairedOutcomes, Rate
from ..suites.suite import Case, SuiteUnavailable
from .code import extract_program, run_tests
from .harness import HarnessTask, harness_task
from .scoring import same_final_number, sentiment

Score = Callable[[str, str], bool]


@dataclass(frozen=True)
class UtilityTask:
    """A task with known answers.

    Attributes:
        name: name that tables show.
        cases: the questions that the model is asked.
        judge: function that says of each answer, in order, whether it is right.
        max_new_tokens: longest answer, in tokens.
        source: where the rows come from.
    """

    name: str
    cases: tuple[Case, ...]
    judge: Callable[[Sequence[str]], list[bool]]
    max_new_tokens: int
    source: str


@dataclass(frozen=True)
class UtilityResult:
    """How a model does on a task.

    Attributes:
        model: name of the model.
        task: name of the task.
        source: where the task's rows come from.
        answers: the model's answers, in order.
        right: whether each answer is right, in order.
    """

    model: str
    task: str
    source: str
    answers: tuple[str, ...]
    right: tuple[bool, ...]

    @property
    def rate(self) -> Rate:
        """The share of right answers."""
        return Rate(sum(self.right), len(self.right))

    def against(self, first: "UtilityResult") -> PairedOutcomes:
        """Compare another model with this one, on the same rows."""
        return PairedOutcomes.of(first.right, self.right)


def _same_sentiment(answer: str, reference: str) -> bool:
    return sentiment(answer) == sentiment(reference)


#: Task of training -> when an answer is right, and the longest answer in tokens.
_SCORES: dict[str, tuple[Score, int]] = {"gsm8k": (same_final_number, 320), "sst2": (_same_sentiment, 8)}
SCORED_TASKS = tuple(_SCORES)
UTILITY_TASKS = (*SCORED_TASKS, "code:FILE", "lm_eval:TASK")
_CODE_TOKENS = 384


def utility_task(
    name: str, limit: int | None = None, *, allow_code_execution: bool = False
) -> UtilityTask | HarnessTask:
    """Load a task by name, from the Hub, or from a file with the same columns: `gsm8k:FILE`.

    `code:FILE` has rows of `prompt` and `test` (Python that fails where the program is wrong), and may have
    `entry_point`, the function that `test` calls through `check(function)`, as in HumanEval. `lm_eval:TASK` is one of
    lm-evaluation-harness.

    Args:
        name: one of `UTILITY_TASKS`; `NAME:FILE` reads a local file instead of the Hub.
        limit: most rows that are used, evenly spread; None for all.
        allow_code_execution: whether programs that a model wrote may be run, in the sandbox.

    Raises:
        FileNotFoundError: when the file does not exist.
        ModuleNotFoundError: for a task of lm-evaluation-harness, where that is not installed.
        PermissionError: for code, without `allow_code_execution`.
        SuiteUnavailable: when the Hub cannot be reached.
        ValueError: for an unknown name, or rows without the columns.
    """
    task, _, path = name.partition(":")
    if task == "code" and path:
        return _code_task(path, limit, allow_code_execution)
    if task == "lm_eval" and path:
        return harness_task(path, limit)
    if task not in SCORED_TASKS:
        raise ValueError(f"Utility task '{task}' is unknown. Choose from: {', '.join(UTILITY_TASKS)}.")
    known = TASKS[task]
    rows = load_rows(path, split="train") if path else _fetch(known)
    require_columns(rows, known.columns, name)
    require_texts(rows, known.texts, name)
    return scored_task(
        task, [known.row(row) for row in evenly_spread(rows, limit or None)], path or known.source.location
    )


def scored_task(name: str, rows: Sequence[Mapping[str, Any]], source: str, limit: int | None = None) -> UtilityTask:
    """Make a utility task of one that can be trained on, from rows in the form that training uses.

    Args:
        name: one of `SCORED_TASKS`.
        rows: rows of chat `prompt` and `completion`, as `load_task` gives them.
        source: where the rows come from.
        limit: most rows that are used, evenly spread; None for all.
    """
    score, longest = _SCORES[name]
    kept = evenly_spread(rows, limit or None)
    cases = tuple(Case.of(row["prompt"], harmful=False) for row in kept)
    judge = partial(_scores, score, [completion_of(row) for row in kept])
    return UtilityTask(name, cases, judge, longest, source)


def _scores(score: Score, references: Sequence[str], answers: Sequence[str]) -> list[bool]:
    return [score(answer, truth) for answer, truth in zip(answers, references, strict=True)]


def _code_task(path: str, limit: int | None, allow_code_execution: bool) -> UtilityTask:
    found = load_rows(path, split="train")
    require_columns(found, ("prompt", "test"), path)
    require_texts(found, ("prompt", "test"), path)
    rows = evenly_spread(found, limit or None)
    run_tests([], allow_code_execution=allow_code_execution)  # before any model has answered
    cases = tuple(Case(row["prompt"], harmful=False) for row in rows)
    return UtilityTask("code", cases, partial(_pass, rows, allow_code_execution), _CODE_TOKENS, path)


def _pass(rows: Sequence[dict[str, Any]], allow_code_execution: bool, answers: Sequence[str]) -> list[bool]:
    programs = []
    for row, answer in zip(rows, answers, strict=True):
        entry_point = row.get("entry_point")
        call = f"\ncheck({entry_point})\n" if entry_point else ""
        programs.append((extract_program(row["prompt"], answer, entry_point), row["test"] + call))
    return run_tests(programs, allow_code_execution=allow_code_execution)


def _fetch(task: Task) -> Any:
    try:
        return task.source.load(task.splits["test"], "FILE")
    except DataUnavailable as error:
        raise SuiteUnavailable(
            f"Utility task '{task.name}' could not be loaded from its source: {error} With a copy: --utility "
            f"{task.name}:FILE.jsonl"
        ) from error
