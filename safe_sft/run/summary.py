"""Prints the tables at the end of a run."""

from typing import TYPE_CHECKING

from transformers.trainer_callback import TrainerState

from ..evaluation import Evaluation, Rate
from ..storage.terminal import console, table

if TYPE_CHECKING:
    from rich.table import Table


def print_summary(state: TrainerState, method: str, evaluation: Evaluation) -> None:
    """Print the last logged losses, attack success before and after (and of the merge), and what else was measured.

    Args:
        state: the trainer's state, which holds what was logged.
        method: value of `safety_method`.
        evaluation: the model before, after, and its merge, as far as they were measured.
    """
    out = console()
    numbers = _numbers(evaluation)
    attack = next((label for label in numbers if label.startswith("ASR")), "ASR")
    losses_table = table("method", "task loss", "safety loss", "ASR before", "ASR after")
    losses = _last(state, "task_loss", "loss", "train_loss"), _last(state, "safety_loss")
    rates = numbers.pop(attack, {})
    losses_table.add_row(method, *losses, _text(rates.get("before")), _text(rates.get("after")))
    if "merged" in rates:
        losses_table.add_row(f"{method}, merged", "", "", "", _text(rates["merged"]))
    out.print(losses_table)
    if numbers:
        out.print(_by_model(numbers, evaluation))


def print_numbers(evaluation: Evaluation) -> None:
    """Print what was measured, a row each, with a column for each model.

    Args:
        evaluation: the models, side by side.
    """
    console().print(_by_model(_numbers(evaluation), evaluation))


def _by_model(numbers: dict[str, dict[str, str]], evaluation: Evaluation) -> "Table":
    models = [spec.name for spec in evaluation.models]
    made = table("", *models)
    for label, of_model in numbers.items():
        made.add_row(label, *(_text(of_model.get(model)) for model in models))
    return made


def _numbers(evaluation: Evaluation) -> dict[str, dict[str, str]]:
    """Return the rates in words, by what was measured and by model, in the order of the questions."""
    numbers: dict[str, dict[str, str]] = {}
    for result in evaluation.safety:
        if result.headline is not None:
            label = f"{'ASR' if result.suite.harmful else 'over-refusal'}, {result.suite.name}"
            numbers.setdefault(label, {})[result.model] = _shown(result.headline, result.report.beside)
    for task in evaluation.utility:
        numbers.setdefault(f"right answers, {task.task}", {})[task.model] = _shown(task.rate)
    own = next((loss.task for loss in evaluation.task_losses), None)
    for loss in evaluation.task_losses:
        label = "held out" if loss.task == own else loss.task
        numbers.setdefault(f"task loss, {label}", {})[loss.model] = f"{loss} (n={len(loss.sums)})"
    return numbers


def _last(state: TrainerState, *names: str) -> str:
    """Return the last value of the first of `names` that was logged."""
    for name in names:
        values = [entry[name] for entry in state.log_history if name in entry]
        if values:
            return f"{values[-1]:.4f}"
    return "–"


def _shown(rate: Rate, beside: str = "") -> str:
    if rate.not_measurable:
        return str(rate)
    return f"{rate} (n={rate.n}{'; ' + beside if beside else ''})"


def _text(number: str | None) -> str:
    return "not measured" if number is None else number
