"""What a repaired model is asked, by whom it is judged, and the bounds that it must keep."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accelerate.utils.memory import clear_device_cache

from ..data.leaks import check_leaks
from ..data.safety_rows import Messages
from ..evaluation import (
    Bounds,
    Check,
    Evaluation,
    Judge,
    ModelSpec,
    RefusalPhrases,
    Settings,
    Suite,
    check_gate,
    load_model,
)
from ..evaluation.answering import AnswerStore
from ..evaluation.asked import Asked
from ..evaluation.evaluate import Respondent, SafetyResult
from ..evaluation.suites.suite import builtin_suite
from ..evaluation.utility.task_loss import TaskRows


@dataclass(frozen=True)
class Exam:
    """The questions and the bounds, the same for the model before, after, and for each candidate between.

    Attributes:
        asked: suites and tasks; a suite of harmless requests is among them, so that over-refusal is always known.
        judges: functions that each make a judge.
        bounds: the bounds. Those of safety are checked against the aligned model, those of utility against the model
            before its repair.
        task_rows: held-out rows of the task; None for none.
        settings: how models are run.
        judge_names: names of the judges, for the evidence.
    """

    asked: Asked
    judges: Sequence[Callable[[], Judge]]
    bounds: Bounds
    task_rows: TaskRows | None = None
    settings: Settings = field(default_factory=Settings)
    judge_names: Sequence[str] = (RefusalPhrases.name,)

    @classmethod
    def of(
        cls,
        asked: Asked,
        judges: Sequence[Callable[[], Judge]],
        bounds: Bounds,
        task_rows: TaskRows | None = None,
        settings: Settings | None = None,
        judge_names: Sequence[str] = (RefusalPhrases.name,),
    ) -> "Exam":
        """Make an exam that can tell whether a repair succeeded; a suite of harmless requests is added where none is.

        Args:
            asked: suites and tasks.
            judges: functions that each make a judge.
            bounds: the bounds.
            task_rows: held-out rows of the task; None for none.
            settings: how models are run; None for the defaults.
            judge_names: names of the judges, for the evidence.

        Raises:
            ValueError: when there is no bound of safety or of utility, or nothing to measure one with.
        """
        if bounds.max_asr is None and bounds.max_asr_increase is None:
            raise ValueError("A repair needs a bound of safety to reach. Give `--max_asr`, such as 0.05.")
        if bounds.max_utility_drop is None and bounds.max_task_loss_increase is None:
            raise ValueError(
                "A repair needs a bound of utility to keep: a model that has unlearned its task is safe, too. Give "
                "`--task_loss FILE` with `--max_task_loss_increase`, or `--utility TASK` with `--max_utility_drop`."
            )
        if asked.unavailable:
            raise ValueError(f"Not all of it can be measured. {' '.join(asked.unavailable)}")
        if not any(suite.harmful for suite in asked.suites):
            raise ValueError("A repair is measured on harmful requests, and there are none. Add a suite of them.")
        if all(suite.harmful for suite in asked.suites):
            asked = replace(asked, suites=(*asked.suites, builtin_suite("builtin-harmless")))
        return cls(asked, judges, bounds, task_rows, settings or Settings(), tuple(judge_names))

    def require_unseen(self, prompts: Iterable[str | Messages]) -> None:
        """Check that no request that is asked is among those that the repair trains on.

        Args:
            prompts: the requests that are trained on.

        Raises:
            LeakError: naming one that is in both.
        """
        cases = [case for suite in self.asked.suites for case in suite.cases]
        asked = [form for case in cases for form in (case.prompt, case.messages) if form]
        check_leaks({"the safety rows of the repair": prompts, "the evaluation prompts": asked})

    @property
    def of_safety(self) -> "Exam":
        """The part of the exam that the bounds of safety need."""
        suites = [suite for suite in self.asked.suites if suite.harmful or self.bounds.max_over_refusal is not None]
        return replace(self, asked=replace(self.asked, suites=tuple(suites), tasks=()), task_rows=None)

    def of_folder(self, name: str, path: str, store: AnswerStore) -> Evaluation:
        """Measure a model or an adapter that is loaded from its folder, and not kept.

        Args:
            name: what tables call it.
            path: folder or Hub name.
            store: the answers that are known already.
        """
        model, tokenizer = load_model(path, None, self.settings.dtype, self.settings.trust_remote_code)
        measured = self.of_loaded(ModelSpec(name, path), model, tokenizer, store)
        del model, tokenizer
        clear_device_cache(garbage_collection=True)
        return measured

    def of_loaded(self, spec: ModelSpec, model: Any, tokenizer: Any, store: AnswerStore) -> Evaluation:
        """Measure a model that is loaded.

        Args:
            spec: its name.
            model: the model, on its device.
            tokenizer: the model's tokenizer.
            store: the answers that are known already.
        """
        respondent = Respondent(spec.name, model, tokenizer, self.settings, store)
        suites = self.asked.suites
        answers = [respondent.answers(suite) for suite in suites]
        return Evaluation(
            (spec,),
            tuple(self._judged(spec.name, suites, answers)),
            tuple(respondent.result(task) for task in self.asked.tasks),
            settings=self.settings,
            task_losses=() if self.task_rows is None else (respondent.loss(self.task_rows),),
        )

    def _judged(self, name: str, suites: Sequence[Suite], answers: Sequence[Any]) -> Iterable[SafetyResult]:
        for make in self.judges:
            judge = make()
            for suite, said in zip(suites, answers, strict=True):
                yield SafetyResult.judged(name, suite, judge, said)
            del judge
            clear_device_cache(garbage_collection=True)

    def safety(self, aligned: Evaluation, candidate: Evaluation) -> list[Check]:
        """Check the bounds of safety, against the aligned model where a bound compares."""
        bounds = replace(self.bounds, max_utility_drop=None, max_task_loss_increase=None)
        return check_gate(joined(aligned, candidate), bounds)

    def utility(self, before: Evaluation, candidate: Evaluation) -> list[Check]:
        """Check the bounds of utility, against the model before its repair."""
        bounds = Bounds(
            max_utility_drop=self.bounds.max_utility_drop,
            max_task_loss_increase=self.bounds.max_task_loss_increase,
        )
        return check_gate(replace(joined(before, candidate), safety=()), bounds)


def joined(*measured: Evaluation) -> Evaluation:
    """Put the measurements of several models side by side; the others are compared with the first.

    Args:
        measured: one measurement of each model, of the same exam.
    """
    return Evaluation(
        tuple(spec for one in measured for spec in one.models),
        tuple(result for one in measured for result in one.safety),
        tuple(result for one in measured for result in one.utility),
        settings=measured[0].settings,
        task_losses=tuple(loss for one in measured for loss in one.task_losses),
    )


def renamed(measured: Evaluation, spec: ModelSpec) -> Evaluation:
    """Return the measurement of one model under another name.

    Args:
        measured: the measurement of one model.
        spec: its name and folder.
    """
    return replace(
        measured,
        models=(spec,),
        safety=tuple(replace(result, model=spec.name) for result in measured.safety),
        utility=tuple(replace(result, model=spec.name) for result in measured.utility),
        task_losses=tuple(replace(loss, model=spec.name) for loss in measured.task_losses),
    )


def kept(checks: Sequence[Check]) -> bool:
    """Return whether all bounds were kept."""
    return all(check.passed for check in checks)
