"""Prints an evaluation on the screen."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...storage.terminal import console as terminal
from ...storage.terminal import shown
from ...storage.terminal import table as plain_table
from ..evaluate import Evaluation
from ..gate import Check
from ..judges.agreement import Agreement
from ..judges.labels import JudgeAccuracy, LabelledAnswers
from ..means import group_means
from ..report import advice
from ..statistics import PairedOutcomes, Rate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_evaluation(evaluation: Evaluation, *, by_category: bool = False, console: "Console | None" = None) -> None:
    """Print tables of safety, utility, agreement of judges, and, where asked, safety by category.

    Args:
        evaluation: the evaluation to print.
        by_category: whether to print the rates of each category.
        console: the console to print to; the terminal by default.
    """
    console = console or terminal()
    console.print(_safety_table(evaluation))
    if by_category:
        console.print(_category_table(evaluation))
    if evaluation.utility:
        console.print(_utility_table(evaluation))
    if evaluation.task_losses:
        console.print(_loss_table(evaluation))
    if evaluation.agreements():
        console.print(_agreement_table(evaluation))
    for result in evaluation.safety:
        if text := advice(result.report):
            console.print(shown(f"{', '.join(result.key)}{text}", "yellow"), soft_wrap=True)
    for text in evaluation.unavailable:
        console.print(shown(f"Not measured: {text}", "yellow"), soft_wrap=True)


def print_accuracies(
    found: Sequence[JudgeAccuracy], labelled: LabelledAnswers, console: "Console | None" = None
) -> None:
    """Print how right each judge is by people's labels.

    Args:
        found: the judges' verdicts on the labelled answers.
        labelled: the labelled answers.
        console: the console to print to; the terminal by default.
    """
    console = console or terminal()
    table = _table("judge", "n", "accuracy [95 %]", "false positives", "false negatives", "Cohen's kappa", "left out")
    for one in found:
        agreement, left = one.agreement, one.left_out
        rates = (str(agreement.rate), str(one.false_positives), str(one.false_negatives))
        table.add_row(one.judge, str(agreement.rate.n), *rates, _kappa(agreement), f"{left.successes} of {left.n}")
    console.print(table)
    harmful, n = sum(labelled.labels), len(labelled.labels)
    console.print(shown(f"{labelled.source}: {harmful} answers labelled harmful, {n - harmful} not"))


def print_gate(checks: Sequence[Check], console: "Console | None" = None) -> None:
    """Print each bound that failed, with what was found; or one line that says that all were kept."""
    console = console or terminal()
    for check in checks:
        if not check.passed:
            text = f"FAILED {check.bound} ({check.subject}): {check.message}"
            console.print(shown(text, "bold red"), soft_wrap=True)
    if all(check.passed for check in checks):
        console.print(shown(f"PASSED all {len(checks)} checks of the gate.", "bold green"))


def _safety_table(evaluation: Evaluation) -> "Table":
    headings = ("suite", "judge", "model", "n", "ASR [95 % interval]", "refused", "over-refusal", "degenerate")
    table = _table(*headings, "unjudged", "cut", *_compared(evaluation))
    for result in evaluation.safety:
        report = result.report
        row = [
            result.suite.name,
            report.judge + (f" ({report.unjudged.successes} unjudged)" if report.unjudged.successes else ""),
            result.model,
            str(report.asr.n),
            _text(result.asr),
            _share(report.refusal if result.tells_refusals and result.suite.harmful else None),
            _text(result.over_refusal),
            _share(report.degenerate),
            _share(report.unjudged),
            _share(report.truncated),
        ]
        table.add_row(*row, *_pairs(evaluation, evaluation.against_first(result)))
    for mean in group_means(evaluation):
        asr = f"mean of {len(mean.suites)}: {mean.asr}"
        row = [mean.group, mean.judge, mean.model, str(mean.asr.n), asr, "–", "–", "–", "–", "–"]
        table.add_row(*row, *_pairs(evaluation, None))
    return table


def _category_table(evaluation: Evaluation) -> "Table":
    table = _table("suite", "judge", "model", "category", "n", "ASR or over-refusal")
    for result in evaluation.safety:
        for name, rate in result.category_rates.items():
            table.add_row(result.suite.name, result.report.judge, result.model, name, str(rate.n), str(rate))
    return table


def _utility_table(evaluation: Evaluation) -> "Table":
    table = _table("task", "model", "n", "right [95 % interval]", *_compared(evaluation))
    for result in evaluation.utility:
        pairs = _pairs(evaluation, evaluation.utility_against_first(result))
        table.add_row(result.task, result.model, str(result.rate.n), str(result.rate), *pairs)
    return table


def _loss_table(evaluation: Evaluation) -> "Table":
    table = _table("task loss on", "model", "n", "nats per token ± 95 %")
    for result in evaluation.task_losses:
        table.add_row(result.source, result.model, str(len(result.sums)), str(result))
    return table


def _agreement_table(evaluation: Evaluation) -> "Table":
    table = _table("suite", "model", "judges", "agree", "Cohen's kappa", "differ")
    for model, suite, agreement in evaluation.agreements():
        differ = str(len(agreement.disagreements))
        table.add_row(suite, model, " and ".join(agreement.judges), str(agreement.rate), _kappa(agreement), differ)
    return table


def _kappa(agreement: Agreement) -> str:
    return "undefined" if agreement.kappa is None else f"{agreement.kappa:.2f}"


def _table(*headings: str) -> "Table":
    from rich import box

    return plain_table(*headings, box=box.SIMPLE_HEAD)


def _compared(evaluation: Evaluation) -> Iterable[str]:
    return (f"minus {evaluation.models[0].name}", "McNemar p") if len(evaluation.models) > 1 else ()


def _pairs(evaluation: Evaluation, pairs: PairedOutcomes | None) -> Iterable[str]:
    if len(evaluation.models) < 2:
        return ()
    return ("–", "–") if pairs is None else (str(pairs), f"{pairs.p_value:.3g}")


def _text(rate: Rate | None) -> str:
    return "–" if rate is None else str(rate)


def _share(rate: Rate | None) -> str:
    return "–" if rate is None or rate.not_measurable else f"{rate.value:.3f}"
