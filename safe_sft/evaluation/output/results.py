"""An evaluation as plain data, for `results.json` and the report; and as lines of answers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ...storage.secrets import cleaned
from ...version import __version__
from ..evaluate import Evaluation, SafetyResult
from ..gate import Check
from ..means import group_means
from ..utility.task_loss import TaskLoss


def results(evaluation: Evaluation, checks: Sequence[Check] = ()) -> dict[str, Any]:
    """Return everything that was counted, as plain values.

    The top level also holds the rates of the last model, which is on trial, on the first suite by the first judge.

    Args:
        evaluation: the evaluation to convert.
        checks: the gate's checks; empty where there was no gate.
    """
    content: dict[str, Any] = {
        "safe_sft": __version__,
        "settings": asdict(evaluation.settings),
        "models": [asdict(spec) for spec in evaluation.models],
        **_headline(evaluation),
        "safety": [_safety(evaluation, result) for result in evaluation.safety],
        "utility": [_utility(evaluation, result) for result in evaluation.utility],
        "task_loss": [_task_loss(result) for result in evaluation.task_losses],
        "agreement": [
            {"model": model, "suite": suite, **agreement.as_dict()}
            for model, suite, agreement in evaluation.agreements()
        ],
        "means": [mean.as_dict() for mean in group_means(evaluation)],
        "unavailable": list(evaluation.unavailable),
    }
    if checks:
        content["gate"] = {"passed": all(c.passed for c in checks), "checks": [c.as_dict() for c in checks]}
    return cleaned(content)


def answer_lines(evaluation: Evaluation) -> Iterator[str]:
    """Make a line of JSON for each prompt of each model: the answer, and the verdict of each judge."""
    grouped: dict[tuple[str, str], list[SafetyResult]] = {}
    for result in evaluation.safety:
        grouped.setdefault((result.model, result.suite.name), []).append(result)
    weights = {spec.name: spec.weights for spec in evaluation.models}
    for (model, suite), judged in grouped.items():
        first = judged[0].report
        for i, case in enumerate(judged[0].suite.cases):
            yield _line(
                model=model,
                weights=weights[model],
                suite=suite,
                category=case.category,
                harmful=case.harmful,
                prompt=case.prompt,
                answer=first.answers[i],
                truncated=first.cut[i],
                **({"thought": first.thoughts[i]} if first.thoughts and first.thoughts[i] else {}),
                **({"cut_in_thought": True} if first.in_thought and first.in_thought[i] else {}),
                verdicts={result.report.judge: result.report.verdicts[i].value for result in judged},
            )
    for task in evaluation.utility:
        for answer, right in zip(task.answers, task.right, strict=True):
            yield _line(model=task.model, weights=weights[task.model], task=task.task, answer=answer, right=right)


def _line(**content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


def _headline(evaluation: Evaluation) -> dict[str, Any]:
    last = evaluation.models[-1]
    mine = [result for result in evaluation.safety if result.model == last.name]
    rates = _rates(mine[0]) if mine else {}
    return {"model": last.path, "adapter": last.adapter, **rates}


def _rates(result: SafetyResult) -> dict[str, Any]:
    report = result.report
    rates: dict[str, Any] = {"judge": report.judge, "judge_revision": report.judge_revision}
    for name in ("asr", "over_refusal"):
        rate = getattr(result, name)
        if rate is not None:
            rates[name] = rate.as_dict()
    if result.tells_refusals:
        rates["refusal"] = report.refusal.as_dict()
    for name in ("degenerate", "truncated", "unjudged", "cut_in_thought"):
        rates[name] = getattr(report, name).as_dict()
    return rates


def _safety(evaluation: Evaluation, result: SafetyResult) -> dict[str, Any]:
    pairs = evaluation.against_first(result)
    counted = "asr" if result.suite.harmful else "refusal"
    return {
        "model": result.model,
        "suite": result.suite.name,
        "source": result.suite.source,
        "revision": result.suite.revision,
        "harmful": result.suite.harmful,
        **_rates(result),
        "against_first": None if pairs is None else pairs.as_dict(),
        "categories": {name: {counted: rate.as_dict()} for name, rate in result.category_rates.items()},
    }


def _utility(evaluation: Evaluation, result: Any) -> dict[str, Any]:
    pairs = evaluation.utility_against_first(result)
    return {
        "model": result.model,
        "task": result.task,
        "source": result.source,
        "right": result.rate.as_dict(),
        "against_first": None if pairs is None else pairs.as_dict(),
    }


def _task_loss(result: TaskLoss) -> dict[str, Any]:
    loss = {**result.as_dict(), "tokens": sum(result.tokens)}
    return {"model": result.model, "task": result.task, "source": result.source, "loss": loss}
