"""Measures attack success, over-refusal and, where possible, the task itself, before and after training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data.tasks import find_task
from ..evaluation import Evaluation, ModelSpec, RefusalPhrases, Settings, Suite
from ..evaluation.answering import AnswerStore
from ..evaluation.evaluate import Respondent, SafetyResult
from ..evaluation.suites.suite import builtin_suite, file_suite
from ..evaluation.utility.scored_tasks import SCORED_TASKS, UtilityResult, UtilityTask, scored_task
from ..evaluation.utility.task_loss import TaskLoss, TaskRows
from ..hub.results import BEFORE

#: Rows of the task's test split that are answered, evenly spread.
TASK_ROWS = 200


@dataclass(frozen=True)
class Questions:
    """What the model is asked before and after training.

    Attributes:
        suites: suites of harmful requests and of harmless ones.
        tasks: tasks with known answers.
        task_rows: held-out rows of the task, which a loss is measured on; None for none.
        earlier_rows: held-out rows of the tasks of earlier stages.
        store: folder in which the answers of the model before training are kept; None keeps none.
    """

    suites: tuple[Suite, ...] = ()
    tasks: tuple[UtilityTask, ...] = ()
    task_rows: TaskRows | None = None
    store: str | None = None
    earlier_rows: tuple[TaskRows, ...] = ()

    def ask(self, model: Any, tokenizer: Any, args: SafeSFTConfig, name: str) -> "Answers":
        """Let `model` answer everything greedily, and judge the answers; every rank must call it.

        Args:
            model: the model, on its device.
            tokenizer: the model's tokenizer.
            args: the run's `SafeSFTConfig`, with the longest answer and the batch size.
            name: name of the model.
        """
        store = AnswerStore(self.store) if self.store is not None and name == BEFORE else None
        asked, judge = Respondent(name, model, tokenizer, _settings(args), store), RefusalPhrases()
        return Answers(
            ModelSpec(name, name),
            tuple(SafetyResult.judged(name, suite, judge, asked.answers(suite)) for suite in self.suites),
            tuple(asked.result(task) for task in self.tasks),
            None if self.task_rows is None else asked.loss(self.task_rows),
            tuple(asked.loss(rows) for rows in self.earlier_rows),
        )


@dataclass(frozen=True)
class Answers:
    """What one model answered.

    Attributes:
        model: the model that answered.
        safety: one result for each suite.
        utility: one result for each task.
        task_loss: the loss on held-out rows; None where there are none.
        earlier_losses: the loss on the held-out rows of each earlier stage.
    """

    model: ModelSpec
    safety: tuple[SafetyResult, ...] = ()
    utility: tuple[UtilityResult, ...] = ()
    task_loss: TaskLoss | None = None
    earlier_losses: tuple[TaskLoss, ...] = ()

    @property
    def losses(self) -> list[TaskLoss]:
        """All losses that were measured, the one of the run's own task first."""
        return [*([] if self.task_loss is None else [self.task_loss]), *self.earlier_losses]

    def logs(self) -> dict[str, float]:
        """Return the rates and the ends of their 95 % intervals, by the names that they are logged under."""
        rates: dict[str, float] = {}
        for result in self.safety:
            name = f"safety/{'asr' if result.suite.harmful else 'over_refusal'}_{self.model.name}"
            if result.headline is not None and not result.headline.not_measurable and name not in rates:
                low, high = result.headline.interval  # of the user's suite, which comes first
                rates |= {name: result.headline.value, f"{name}_low": low, f"{name}_high": high}
        if self.task_loss is not None:
            rates[f"task_loss_{self.model.name}"] = self.task_loss.value
        rates |= {f"task_loss_{self.model.name}/{loss.task}": loss.value for loss in self.earlier_losses}
        return {**rates, **{f"{r.task}_{self.model.name}": r.rate.value for r in self.utility}}


def evaluation_of(answers: Sequence[Answers], args: SafeSFTConfig) -> Evaluation:
    """Join the answers of several models to the same questions; the others are compared with the first.

    Args:
        answers: the answers of each model.
        args: the run's `SafeSFTConfig`, with the longest answer and the batch size.
    """
    return Evaluation(
        tuple(one.model for one in answers),
        tuple(result for one in answers for result in one.safety),
        tuple(result for one in answers for result in one.utility),
        settings=_settings(args),
        task_losses=tuple(loss for one in answers for loss in one.losses),
    )


def _settings(args: SafeSFTConfig) -> Settings:
    return Settings(
        args.safety_eval_max_new_tokens,
        args.safety_eval_batch_size,
        chat_template_kwargs=args.template_options or None,
    )


def read_questions(
    script: SafeScriptArguments, splits: Mapping[str, Any], task_rows: TaskRows | None = None
) -> Questions:
    """Load what this run asks its model; nothing with `safety_eval: false`.

    Args:
        script: the run's `SafeScriptArguments`, which name the prompts and the task.
        splits: the splits of the training data, as loaded; a task is measured on its split `test`.
        task_rows: held-out rows of the task; None for none.

    Raises:
        FileNotFoundError: when the file of prompts does not exist.
        ValueError: when that file has no column of prompts, or the gate needs a task that cannot be measured.
    """
    if not script.safety_eval:
        return Questions()
    name = script.safety_eval_prompts
    harmful = [builtin_suite("builtin-harmful")] if name is None else file_suite(name).split()
    suites = (*harmful, builtin_suite("builtin-harmless"))
    return Questions(suites, _tasks(script, splits), task_rows, script.safety_eval_store)


def _tasks(script: SafeScriptArguments, splits: Mapping[str, Any]) -> tuple[UtilityTask, ...]:
    task = script.task
    if task not in SCORED_TASKS:
        if script.gate_max_utility_drop is not None:
            raise ValueError(
                f"`gate_max_utility_drop={script.gate_max_utility_drop}` needs a task with right and wrong answers, "
                f"and `task={task!r}` is none. Choose from: {', '.join(SCORED_TASKS)}; or remove it."
            )
        return ()
    if "test" not in splits:
        return ()
    source = "local file" if script.task_path else find_task(task).source.location
    return (scored_task(task, splits["test"], source, TASK_ROWS),)
