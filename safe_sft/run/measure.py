"""What a run measures before and after training: attack success, over-refusal, and the task itself where it can."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data.sources import DataUnavailable
from ..data.tasks import find_task, load_task
from ..evaluation import Evaluation, ModelSpec, RefusalPhrases, Settings, Suite
from ..evaluation.answering import answer_cases
from ..evaluation.evaluate import SafetyResult
from ..evaluation.report import judge_answers
from ..evaluation.suites.suite import builtin_suite, file_suite
from ..evaluation.utility.scored_tasks import SCORED_TASKS, UtilityResult, UtilityTask, scored_task

#: Rows of the task's test split that are answered, evenly spread.
TASK_ROWS = 200


@dataclass(frozen=True)
class Questions:
    """What models are asked.

    Attributes:
        suites: harmful requests, and harmless ones.
        tasks: with known answers.
    """

    suites: tuple[Suite, ...] = ()
    tasks: tuple[UtilityTask, ...] = ()

    def ask(self, model: Any, tokenizer: Any, args: SafeSFTConfig, name: str) -> "Answers":
        """Let `model` answer everything greedily, and judge the answers; every rank must call it.

        Args:
            model: on its device.
            tokenizer: its tokenizer.
            args: with the longest answer and the batch size.
            name: of the model.
        """
        say = partial(answer_cases, model, tokenizer, batch_size=args.safety_eval_batch_size)
        judge, safety, utility = RefusalPhrases(), [], []
        for suite in self.suites:
            said = say(
                suite.cases,
                max_new_tokens=args.safety_eval_max_new_tokens,
                description=f"{suite.name}, {name}",
            )
            report = judge_answers(judge, suite.cases, said)
            safety.append(SafetyResult(name, suite, report, judge.tells_refusals))
        for task in self.tasks:
            said = say(task.cases, max_new_tokens=task.max_new_tokens, description=f"{task.name}, {name}")
            texts = tuple(answer.text for answer in said)
            utility.append(UtilityResult(name, task.name, task.source, texts, tuple(task.judge(texts))))
        return Answers(ModelSpec(name, name), tuple(safety), tuple(utility))


@dataclass(frozen=True)
class Answers:
    """What one model answered.

    Attributes:
        model: the model.
        safety: on each suite.
        utility: on each task.
    """

    model: ModelSpec
    safety: tuple[SafetyResult, ...] = ()
    utility: tuple[UtilityResult, ...] = ()

    def logs(self) -> dict[str, float]:
        """The rates, by the names that they are logged under."""
        rates: dict[str, float] = {}
        for result in self.safety:
            name = "asr" if result.suite.harmful else "over_refusal"
            if result.headline is not None:
                rates.setdefault(f"safety/{name}_{self.model.name}", result.headline.value)  # the user's suite first
        return {**rates, **{f"{r.task}_{self.model.name}": r.rate.value for r in self.utility}}


def evaluation_of(answers: Sequence[Answers], args: SafeSFTConfig) -> Evaluation:
    """The answers of one or more models to the same questions; the first is what the others are compared with.

    Args:
        answers: of each model.
        args: with the longest answer and the batch size.
    """
    return Evaluation(
        tuple(one.model for one in answers),
        tuple(result for one in answers for result in one.safety),
        tuple(result for one in answers for result in one.utility),
        settings=Settings(args.safety_eval_max_new_tokens, args.safety_eval_batch_size),
    )


def read_questions(script: SafeScriptArguments) -> Questions:
    """What this run measures with; nothing with `safety_eval: false`.

    Raises:
        FileNotFoundError: when the file of prompts does not exist.
        ValueError: when it has no column of prompts, or the task cannot be measured and the gate needs it.
    """
    if not script.safety_eval:
        return Questions()
    return Questions(tuple(read_suites(script)), tuple(_tasks(script)))


def read_suites(script: SafeScriptArguments) -> list[Suite]:
    """The requests that this run measures with: harmful ones, and harmless ones."""
    name = script.safety_eval_prompts
    asked = [builtin_suite("builtin-harmful")] if name is None else file_suite(name).split()
    return [*asked, builtin_suite("builtin-harmless")]


def _tasks(script: SafeScriptArguments) -> list[UtilityTask]:
    task, path = script.task, script.task_path
    if task not in SCORED_TASKS:
        if script.gate_max_utility_drop is not None:
            raise ValueError(
                f"`gate_max_utility_drop={script.gate_max_utility_drop}` needs a task with right and wrong answers, "
                f"and `task={task!r}` is none. Choose from: {', '.join(SCORED_TASKS)}; or remove it."
            )
        return []
    try:
        rows = load_task(task, path).get("test")
    except DataUnavailable:
        if script.gate_max_utility_drop is not None:
            raise
        return []
    source = "local file" if path else find_task(task).source.location
    return [] if rows is None else [scored_task(task, rows, source, TASK_ROWS)]
