"""Several models on several suites and tasks, judged by several judges: what `safe-sft evaluate` does."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch

from ..models.loading import load_model
from .answering import Answer, AnswerStore, answer_cases
from .judges import Judge, Verdict
from .judges.agreement import Agreement
from .report import SafetyReport, judge_answers
from .statistics import PairedOutcomes, Rate
from .suites.suite import Suite
from .utility.harness import HarnessTask, run_harness
from .utility.scored_tasks import UtilityResult, UtilityTask

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class ModelSpec:
    """A model to be measured.

    Attributes:
        name: as it is shown.
        path: folder or Hub name.
        adapter: PEFT adapter, folder or Hub name.
    """

    name: str
    path: str
    adapter: str | None = None


@dataclass(frozen=True)
class Settings:
    """How models are run.

    Attributes:
        max_new_tokens: longest answer to a suite's request, in tokens.
        batch_size: requests at a time, per device.
        dtype: `auto` or the name of a torch dtype.
        trust_remote_code: whether to run code that comes with a model.
    """

    max_new_tokens: int = 64
    batch_size: int = 32
    dtype: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class SafetyResult:
    """A model on a suite, by one judge.

    Attributes:
        model: its name.
        suite: harmful throughout, or harmless throughout.
        report: answers and verdicts.
        tells_refusals: whether the judge can tell a refusal from another safe answer.
    """

    model: str
    suite: Suite
    report: SafetyReport
    tells_refusals: bool

    @property
    def asr(self) -> Rate | None:
        """Attack success; None on harmless requests."""
        return self.report.asr if self.suite.harmful else None

    @property
    def over_refusal(self) -> Rate | None:
        """Refusals of harmless requests; None on harmful ones, and by a judge that cannot tell."""
        return None if self.suite.harmful or not self.tells_refusals else self.report.refusal

    @property
    def headline(self) -> Rate | None:
        """What the suite is for: attack success, or over-refusal."""
        return self.asr if self.suite.harmful else self.over_refusal

    @property
    def counted(self) -> Verdict:
        """The verdict that `headline` counts."""
        return Verdict.COMPLIED if self.suite.harmful else Verdict.REFUSED


@dataclass(frozen=True)
class Evaluation:
    """All that was measured.

    Attributes:
        models: in the order given; the first is what the others are compared with.
        safety: every model on every suite by every judge.
        utility: every model on every task.
        unavailable: what could not be reached, in words.
        settings: how the models were run.
    """

    models: tuple[ModelSpec, ...]
    safety: tuple[SafetyResult, ...]
    utility: tuple[UtilityResult, ...] = ()
    unavailable: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The models that are on trial: all but the first, or the only one."""
        return tuple(spec.name for spec in self.models[1:] or self.models)

    def against_first(self, result: SafetyResult) -> PairedOutcomes | None:
        """`result` and that of the first model, prompt by prompt; None for the first one, or without a headline."""
        first = self.models[0].name
        if result.model == first or result.headline is None:
            return None
        key = (first, result.suite.name, result.report.judge)
        other = next(r for r in self.safety if (r.model, r.suite.name, r.report.judge) == key)
        return result.report.against(other.report, result.counted)

    def utility_against_first(self, result: UtilityResult) -> PairedOutcomes | None:
        """The same for a task."""
        first = self.models[0].name
        if result.model == first:
            return None
        return result.against(next(r for r in self.utility if (r.model, r.task) == (first, result.task)))

    def agreements(self) -> list[tuple[str, str, Agreement]]:
        """Each pair of judges, for each model and suite: (model, suite, agreement)."""
        grouped: dict[tuple[str, str], list[SafetyReport]] = {}
        for result in self.safety:
            grouped.setdefault((result.model, result.suite.name), []).append(result.report)
        return [
            (*key, Agreement.of((a.judge, b.judge), a.verdicts, b.verdicts))
            for key, reports in grouped.items()
            for a, b in combinations(reports, 2)
        ]


def evaluate_models(
    models: Sequence[ModelSpec],
    suites: Sequence[Suite],
    judges: Sequence[Callable[[], Judge]],
    tasks: Sequence[UtilityTask | HarnessTask] = (),
    *,
    settings: Settings | None = None,
    store: AnswerStore | None = None,
    unavailable: Sequence[str] = (),
) -> Evaluation:
    """Let every model answer everything, one model in memory at a time; then judge, one judge at a time.

    Args:
        models: the first is what the others are compared with.
        suites: each harmful or harmless throughout.
        judges: each makes a judge, which may be a model itself.
        tasks: utility tasks, ours or those of lm-evaluation-harness.
        settings: how the models are run.
        store: where answers are kept, so that a killed run goes on.
        unavailable: what could not be reached, to be reported.
    """
    settings = settings or Settings()
    answers: dict[tuple[str, str], list[Answer]] = {}
    utility = []
    for spec in models:
        loaded = load_model(spec.path, spec.adapter, settings.dtype, settings.trust_remote_code)
        for suite in suites:
            answers[spec.name, suite.name] = _answer(loaded, spec, suite.name, suite.cases, settings, store)
        utility += [_measure_task(loaded, spec, task, settings, store) for task in tasks]
        del loaded
        _free_memory()
    safety = _judge_all(models, suites, judges, answers)
    return Evaluation(tuple(models), tuple(safety), tuple(utility), tuple(unavailable), settings)


def _judge_all(
    models: Sequence[ModelSpec],
    suites: Sequence[Suite],
    judges: Sequence[Callable[[], Judge]],
    answers: Mapping[tuple[str, str], Sequence[Answer]],
) -> list[SafetyResult]:
    safety = []
    for make in judges:
        judge = make()
        for suite in suites:
            for spec in models:
                report = judge_answers(judge, suite.cases, answers[spec.name, suite.name])
                safety.append(SafetyResult(spec.name, suite, report, judge.tells_refusals))
        del judge
        _free_memory()
    return safety


def _measure_task(
    loaded: tuple[Any, Any],
    spec: ModelSpec,
    task: UtilityTask | HarnessTask,
    settings: Settings,
    store: AnswerStore | None,
) -> UtilityResult:
    if isinstance(task, HarnessTask):
        answers, right = run_harness(*loaded, task, settings.batch_size)
        return UtilityResult(spec.name, task.name, "lm-evaluation-harness", answers, right)
    said = _answer(loaded, spec, task.name, task.cases, settings, store, task.max_new_tokens)
    texts = tuple(answer.text for answer in said)
    return UtilityResult(spec.name, task.name, task.source, texts, tuple(task.judge(texts)))


def _answer(
    loaded: tuple[Any, Any],
    spec: ModelSpec,
    what: str,
    cases: Sequence[Any],
    settings: Settings,
    store: AnswerStore | None,
    max_new_tokens: int | None = None,
) -> list[Answer]:
    return answer_cases(
        *loaded,
        cases,
        max_new_tokens=max_new_tokens or settings.max_new_tokens,
        batch_size=settings.batch_size,
        description=f"{spec.name}: {what}",
        store=store,
    )


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def category_rates(result: SafetyResult) -> dict[str, Rate]:
    """The headline of a result for each category; empty where it has none."""
    if result.headline is None:
        return {}
    counted = "asr" if result.suite.harmful else "refusal"
    return {name: getattr(part, counted) for name, part in result.report.by_category().items()}
