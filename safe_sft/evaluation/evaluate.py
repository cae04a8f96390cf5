"""Several models on several suites and tasks, judged by several judges: what `safe-sft evaluate` does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from accelerate.utils.memory import clear_device_cache
from transformers import PreTrainedTokenizerBase

from ..models.finite import require_finite
from ..models.generation import own_settings_aside
from ..models.identity import model_identity
from ..models.loading import load_model
from .answering import Answer, AnswerStore, answer_cases
from .judges import Judge, Verdict
from .judges.agreement import Agreement
from .report import SafetyReport, judge_answers
from .statistics import PairedOutcomes, Rate
from .suites.suite import Case, Suite
from .utility.harness import HarnessTask, run_harness
from .utility.scored_tasks import UtilityResult, UtilityTask
from .utility.task_loss import TaskLoss, TaskRows, measure_task_loss
from .weights import loaded_weights


@dataclass(frozen=True)
class ModelSpec:
    """A model to be measured.

    Attributes:
        name: name that tables show.
        path: folder or Hub name.
        adapter: folder or Hub name of a PEFT adapter; None without one.
        weights: which weights these are: digest of a folder's files, or name and commit of the Hub; None for unknown.
    """

    name: str
    path: str
    adapter: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Settings:
    """How models are run.

    Attributes:
        max_new_tokens: longest answer to a suite's request, in tokens.
        batch_size: requests at a time, per device.
        dtype: `auto` or the name of a torch dtype.
        trust_remote_code: whether to run code that comes with a model.
        chat_template_kwargs: further variables of the chat template, such as `enable_thinking`; None for none.
    """

    max_new_tokens: int = 64
    batch_size: int = 32
    dtype: str = "auto"
    trust_remote_code: bool = False
    chat_template_kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SafetyResult:
    """A model on a suite, by one judge.

    Attributes:
        model: name of the model.
        suite: the suite, all of it harmful or all of it harmless.
        report: the answers and their verdicts.
        tells_refusals: whether the judge can tell a refusal from another safe answer.
    """

    model: str
    suite: Suite
    report: SafetyReport
    tells_refusals: bool

    @classmethod
    def judged(cls, model: str, suite: Suite, judge: Judge, answers: Sequence[Answer]) -> "SafetyResult":
        """Let a judge judge the answers to a suite.

        Args:
            model: name of the model that answered.
            suite: the suite that it answered.
            judge: the judge that gives the verdicts.
            answers: one answer to each case of the suite.
        """
        return cls(model, suite, judge_answers(judge, suite.cases, answers), judge.tells_refusals)

    @property
    def key(self) -> tuple[str, str, str]:
        """The names of model, suite and judge, which identify the result."""
        return self.model, self.suite.name, self.report.judge

    @property
    def asr(self) -> Rate | None:
        """Attack success rate; None on harmless requests."""
        return self.report.asr if self.suite.harmful else None

    @property
    def over_refusal(self) -> Rate | None:
        """Share of harmless requests refused; None on harmful ones, and where the judge cannot tell refusals."""
        return None if self.suite.harmful or not self.tells_refusals else self.report.refusal

    @property
    def headline(self) -> Rate | None:
        """The rate that the suite is for: attack success, or over-refusal."""
        return self.asr if self.suite.harmful else self.over_refusal

    @property
    def counted(self) -> Verdict:
        """The verdict that `headline` counts."""
        return Verdict.COMPLIED if self.suite.harmful else Verdict.REFUSED

    @property
    def category_rates(self) -> dict[str, Rate]:
        """Return `headline` for each category; empty where that is no number, or there is only one category."""
        if self.headline is None or self.headline.not_measurable:
            return {}
        return {
            name: part.asr if self.suite.harmful else part.refusal for name, part in self.report.by_category().items()
        }


@dataclass(frozen=True)
class Evaluation:
    """All models, and all that was measured of them.

    Attributes:
        models: names of the models, in the order given; the others are compared with the first.
        safety: one result for every model, suite and judge.
        utility: one result for every model and task.
        task_losses: the loss on held-out rows, for every model and set of rows.
        unavailable: one sentence for each suite or task that could not be reached.
        settings: how the models were run.
    """

    models: tuple[ModelSpec, ...]
    safety: tuple[SafetyResult, ...]
    utility: tuple[UtilityResult, ...] = ()
    unavailable: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    task_losses: tuple[TaskLoss, ...] = ()

    @property
    def candidates(self) -> tuple[str, ...]:
        """The models that are on trial: all but the first, or the only one."""
        return tuple(spec.name for spec in self.models[1:] or self.models)

    def find(self, model: str, suite: str, judge: str) -> SafetyResult:
        """The one result with these names of model, suite and judge."""
        return next(result for result in self.safety if result.key == (model, suite, judge))

    def of_first(self, result: SafetyResult) -> SafetyResult:
        """The first model's result on the suite of `result`, by the same judge."""
        return self.find(self.models[0].name, *result.key[1:])

    def against_first(self, result: SafetyResult) -> PairedOutcomes | None:
        """Compare `result` with the first model's, prompt by prompt; None for the first one, or without numbers."""
        if result.model == self.models[0].name or result.headline is None:
            return None
        first = self.of_first(result).report
        if result.report.not_measurable or first.not_measurable:
            return None
        return result.report.against(first, result.counted)

    def utility_against_first(self, result: UtilityResult) -> PairedOutcomes | None:
        """Compare `result` on a task with the first model's, row by row; None for the first one."""
        first = self.models[0].name
        if result.model == first:
            return None
        return result.against(next(r for r in self.utility if (r.model, r.task) == (first, result.task)))

    def agreements(self) -> list[tuple[str, str, Agreement]]:
        """The agreement of each pair of judges, as (model, suite, agreement)."""
        grouped: dict[tuple[str, str], list[SafetyReport]] = {}
        for result in self.safety:
            grouped.setdefault((result.model, result.suite.name), []).append(result.report)
        return [
            (*key, Agreement.of((a.judge, b.judge), a.verdicts, b.verdicts))
            for key, reports in grouped.items()
            for a, b in combinations(reports, 2)
        ]


@dataclass(frozen=True)
class Respondent:
    """A model in memory, and how it is run: it answers what it is asked; every rank must ask it the same.

    Attributes:
        name: name that tables show.
        model: the model, on its device.
        tokenizer: the model's tokenizer.
        settings: how the model is run.
        store: store of answers on disk, so that a killed run goes on; None keeps none.
    """

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerBase
    settings: Settings
    store: AnswerStore | None = None

    def answers(self, suite: Suite) -> list[Answer]:
        """Answer each case of a suite."""
        return self._answers(suite.name, suite.cases, self.settings.max_new_tokens)

    def result(self, task: UtilityTask | HarnessTask) -> UtilityResult:
        """Answer a task, and check which answers are right."""
        if isinstance(task, HarnessTask):
            require_finite(self.model)
            with own_settings_aside(self.model, self.tokenizer):
                texts, right = run_harness(self.model, self.tokenizer, task, self.settings.batch_size)
            return UtilityResult(self.name, task.name, "lm-evaluation-harness", texts, right)
        texts = tuple(answer.text for answer in self._answers(task.name, task.cases, task.max_new_tokens))
        return UtilityResult(self.name, task.name, task.source, texts, tuple(task.judge(texts)))

    def loss(self, rows: TaskRows) -> TaskLoss:
        """Measure the loss on held-out rows."""
        require_finite(self.model)
        return measure_task_loss(self.model, self.tokenizer, rows, self.settings.batch_size, name=self.name)

    def _answers(self, what: str, cases: Sequence[Case], max_new_tokens: int) -> list[Answer]:
        return answer_cases(
            self.model,
            self.tokenizer,
            cases,
            max_new_tokens=max_new_tokens,
            batch_size=self.settings.batch_size,
            description=f"{self.name}: {what}",
            store=self.store,
            identity=self._identity,
            chat_template_kwargs=self.settings.chat_template_kwargs,
        )

    @cached_property
    def _identity(self) -> str | None:
        """The digest under which its answers are kept; computing it reads all weights, once."""
        return model_identity(self.model, self.tokenizer) if self.store else None


def evaluate_models(
    models: Sequence[ModelSpec],
    suites: Sequence[Suite],
    judges: Sequence[Callable[[], Judge]],
    tasks: Sequence[UtilityTask | HarnessTask] = (),
    *,
    task_rows: Sequence[TaskRows] = (),
    settings: Settings | None = None,
    store: AnswerStore | None = None,
    unavailable: Sequence[str] = (),
) -> Evaluation:
    """Let every model answer everything, one model in memory at a time; then judge, one judge at a time.

    Args:
        models: the models to measure; the others are compared with the first.
        suites: suites of requests, each all harmful or all harmless.
        judges: functions that each make a judge; a judge may be a model itself.
        tasks: utility tasks of this package or of lm-evaluation-harness.
        task_rows: held-out rows that a loss is measured on.
        settings: how the models are run.
        store: store of answers on disk, so that a killed run goes on; None keeps none.
        unavailable: one sentence for each suite or task that could not be reached, for the report.
    """
    settings = settings or Settings()
    answers: dict[tuple[str, str], list[Answer]] = {}
    utility, losses, measured = [], [], []
    for spec in models:
        loaded = load_model(spec.path, spec.adapter, settings.dtype, settings.trust_remote_code)
        measured.append(replace(spec, weights=loaded_weights(spec.path, spec.adapter)) if store else spec)
        respondent = Respondent(spec.name, *loaded, settings, store)
        answers.update({(spec.name, suite.name): respondent.answers(suite) for suite in suites})
        utility += [respondent.result(task) for task in tasks]
        losses += [respondent.loss(rows) for rows in task_rows]
        del loaded, respondent
        clear_device_cache(garbage_collection=True)
    safety = _judge_all(models, suites, judges, answers)
    return Evaluation(tuple(measured), tuple(safety), tuple(utility), tuple(unavailable), settings, tuple(losses))


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
                safety.append(SafetyResult.judged(spec.name, suite, judge, answers[spec.name, suite.name]))
        del judge
        clear_device_cache(garbage_collection=True)
    return safety
