"""One HTML page of an evaluation that a manager can read and an auditor can check; it needs no other file."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluate import Evaluation, SafetyResult
from ..gate import Check
from ..judges import Verdict
from ..means import group_means
from ..report import advice
from .results import results

_EXAMPLES = 20


def report_html(evaluation: Evaluation, checks: Sequence[Check], pictures: Mapping[str, str]) -> str:
    """Return the page as HTML.

    Args:
        evaluation: the evaluation to show.
        checks: the gate's checks; empty where there was no gate.
        pictures: the charts as SVG, by name.
    """
    from jinja2 import Environment, PackageLoader

    # Answers are untrusted text: everything is escaped.
    environment = Environment(
        loader=PackageLoader("safe_sft.evaluation.output"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        data=results(evaluation, checks),
        checks=checks,
        passed=all(check.passed for check in checks) if checks else None,
        summary=_summary(evaluation),
        pictures={name: base64.b64encode(svg.encode()).decode() for name, svg in pictures.items()},
        heat=[table for table in _heat(evaluation) if table["rows"]],
        examples=_examples(evaluation),
        disagreements=_disagreements(evaluation),
        comparing=len(evaluation.models) > 1,
    )


def _summary(evaluation: Evaluation) -> list[str]:
    """Write a sentence for each model on each suite, in words that need no statistics."""
    sentences = []
    for result in evaluation.safety:
        rate = result.headline
        if rate is not None and rate.not_measurable:
            what = "Attack success" if result.suite.harmful else "Over-refusal"
            of = f"{result.model} on {result.suite.name} (judge: {result.report.judge})"
            sentences.append(f"{what} of {of} is {rate}: the model's safety is not known{advice(result.report)}.")
            continue
        if rate is None or not rate.n:
            continue
        low, high = rate.interval
        did, kind = ("complied with", "harmful") if result.suite.harmful else ("refused", "harmless")
        sentences.append(
            f"{result.model} {did} {rate.successes} of {rate.n} {kind} requests of {result.suite.name}: "
            f"{rate.value:.1%}, and with 95 % confidence between {low:.1%} and {high:.1%} "
            f"(judge: {result.report.judge}; {result.report.beside})."
        )
    for mean in group_means(evaluation):
        sentences.append(
            f"Mean attack success of {mean.model} over {', '.join(mean.suites)}: {mean.asr} (judge: {mean.judge}; "
            "each suite counts alike)."
        )
    return sentences


def _heat(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Make a table of categories by models for each suite and judge."""
    tables: dict[tuple[str, str], dict[str, Any]] = {}
    for result in evaluation.safety:
        key = (result.suite.name, result.report.judge)
        table = tables.setdefault(key, {"suite": key[0], "judge": key[1], "models": [], "rows": {}})
        table["models"].append(result.model)
        for category, rate in result.category_rates.items():
            table["rows"].setdefault(category, []).append(rate)
    return list(tables.values())


def _examples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Show harmful requests that a candidate complied with; first those that the first model did not comply with."""
    found: list[dict[str, Any]] = [
        {
            "model": result.model,
            "suite": result.suite.name,
            "judge": result.report.judge,
            "rows": _worst(evaluation, result),
        }
        for result in evaluation.safety
        if result.suite.harmful and result.model in evaluation.candidates
    ]
    return [example for example in found if example["rows"]]


def _worst(evaluation: Evaluation, result: SafetyResult) -> list[dict[str, Any]]:
    report, first = result.report, evaluation.of_first(result).report
    complied = [i for i, verdict in enumerate(report.verdicts) if verdict is Verdict.COMPLIED]
    complied.sort(key=lambda i: first.verdicts[i] is Verdict.COMPLIED)
    return [
        {
            "prompt": report.prompts[i],
            "answer": report.answers[i],
            "category": report.categories[i],
            "new": first.verdicts[i] is not Verdict.COMPLIED,
        }
        for i in complied[:_EXAMPLES]
    ]


def _disagreements(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Show answers on which two judges differ."""
    listed = []
    for model, suite, agreement in evaluation.agreements():
        reports = [evaluation.find(model, suite, judge).report for judge in agreement.judges]
        rows = [
            {
                "prompt": reports[0].prompts[i],
                "answer": reports[0].answers[i],
                "verdicts": [report.verdicts[i].value for report in reports],
            }
            for i in agreement.disagreements[:_EXAMPLES]
        ]
        if rows:
            listed.append({"model": model, "suite": suite, "judges": agreement.judges, "rows": rows})
    return listed
