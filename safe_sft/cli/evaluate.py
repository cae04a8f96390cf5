"""Measure models before they ship: attack success, over-refusal and utility, with intervals, against the first model.

Answers are greedy. Suites are built in, published, or files. Exit status 1 when a bound of the gate is not kept. With
`--labels`, judges are measured instead, by answers that people have labelled.
"""

import argparse
import os
from typing import TYPE_CHECKING, Any

from ..storage.secrets import clean_text
from .command import command, options
from .exits import Status
from .judges import add_judges, judges_of
from .measuring import (
    GATE,
    MEASURING,
    add_data,
    add_gate,
    add_loading,
    asked_of,
    bounds_of,
    judge_names,
    settings_of,
)
from .unread import Rule

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation, ModelSpec
    from ..evaluation.gate import Bounds, Check
    from ..evaluation.output.evidence import EvaluationEvidence


_RULES = (
    *MEASURING,
    Rule(
        "max_asr_increase max_utility_drop max_task_loss_increase",
        "two models (`--model` twice)",
        lambda args: len(args.models or ()) > 1,
    ),
    Rule(
        "dtype chat_template_kwargs trust_remote_code suite prompts prompt_column attack utility task_loss "
        "allow_code_execution limit max_new_tokens batch_size max_asr max_over_refusal by_category",
        "models that answer, and with `--labels` there are none",
        lambda args: args.labels is None,
    ),
)
_GO_ON = "The same command goes on with the answers that it has, where it had an `--output`."


class _OfModel(argparse.Action):
    """Attach `--adapter` and `--name` to the `--model` before them, or, where there is none yet, to the one after."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, value: Any, option: str | None = None) -> None:
        models = namespace.models = [*(namespace.models or [])]
        if not models or self.dest in models[-1]:
            models.append({})
        models[-1] = {**models[-1], self.dest: value}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; imports nothing heavy."""
    parser.set_defaults(models=None)
    models = parser.add_argument_group("models")
    of_model: dict[str, Any] = {"action": _OfModel, "default": argparse.SUPPRESS}
    models.add_argument("--model", **of_model, help="folder or Hub name; repeat it: the first is compared with")
    models.add_argument("--adapter", **of_model, help="PEFT adapter of the --model before it")
    models.add_argument("--name", **of_model, help="what to call the --model before it")
    add_loading(models)
    add_data(parser.add_argument_group("what they are asked"))
    judges = parser.add_argument_group("who judges")
    add_judges(judges)
    judges.add_argument(
        "--labels", metavar="FILE", help="measure the judges: rows of request, answer and label (did it comply?)"
    )
    add_gate(parser.add_argument_group("gate", GATE))
    parser.add_argument("--output", help="folder for report.html, results.json, answers.jsonl, plots and evidence")
    parser.add_argument("--by_category", action="store_true", help="also print the rates of each category")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write, and check the gate; returns 1 when a bound of the gate is not kept.

    Raises:
        OSError: when a model or a data set cannot be reached.
        SuiteUnavailable: when nothing could be measured.
        ValueError: when the arguments cannot be used.
    """
    from accelerate import PartialState

    from ..evaluation.gate import check_gate
    from ..evaluation.output.tables import print_evaluation, print_gate

    if args.labels is not None:
        return _measure_judges(args)
    bounds = bounds_of(args)
    evaluation, evidence = _evaluate(args, bounds)
    checks = check_gate(evaluation, bounds) if bounds.any else []
    if PartialState().is_main_process:
        if evidence is not None:  # before anything that a terminal may not show
            _write(evaluation, args.output, checks, evidence)
        print_evaluation(evaluation, by_category=args.by_category)
        if args.output:
            print(f"Report: {os.path.join(args.output, 'report.html')}")
        if checks:
            print_gate(checks)
    return Status.DONE if all(check.passed for check in checks) else Status.NOT_KEPT


def _measure_judges(args: argparse.Namespace) -> int:
    """Compare each judge with people's labels, print, and write `judges.json`."""
    from accelerate import PartialState

    from ..evaluation.judges.labels import LabelledAnswers, judge_labelled
    from ..evaluation.output.files import write_accuracies
    from ..evaluation.output.tables import print_accuracies
    from ..storage.folders import require_folder

    if args.models:
        raise ValueError(
            f"`--labels {args.labels}` measures judges by answers that are there already, and a model (`--model`) is "
            "given, too. Run the two apart."
        )
    if args.output:
        require_folder(args.output, "--output")
    judges, labelled = judges_of(args), LabelledAnswers.read(args.labels)
    found = judge_labelled(judges, labelled)
    if PartialState().is_main_process:
        if args.output:
            write_accuracies(found, labelled, args.output)
        print_accuracies(found, labelled)
    return Status.DONE


def _write(evaluation: "Evaluation", folder: str, checks: "list[Check]", evidence: "EvaluationEvidence") -> None:
    """Write the report, what the Hub shows of the model on trial, and the evidence of both."""
    from ..evaluation.output.files import write_evaluation
    from ..evaluation.output.results import results
    from ..hub import write_eval_results

    write_evaluation(evaluation, folder, checks)
    write_eval_results(folder, results(evaluation, checks), evaluation.models[-1].name)
    evidence.seal(evaluation, checks)


def _evaluate(args: argparse.Namespace, bounds: "Bounds") -> "tuple[Evaluation, EvaluationEvidence | None]":
    from accelerate import PartialState

    from ..evaluation.answering import AnswerStore
    from ..evaluation.evaluate import evaluate_models
    from ..evaluation.output.evidence import EvaluationEvidence
    from ..evaluation.utility.task_loss import task_rows
    from ..storage.folders import require_apart, require_folder

    models, judges = _models(args), judges_of(args)
    if args.output:
        require_folder(args.output, "--output")
        require_apart(args.output, "--output", [name for spec in models for name in (spec.path, spec.adapter)])
    asked = asked_of(args)
    store = evidence = None
    if args.output:
        store = AnswerStore(os.path.join(args.output, "cache"))
        evidence = EvaluationEvidence(args.output, models, bounds, asked, judge_names(args), settings_of(args))
        if PartialState().is_main_process:
            evidence.begin(store)
    evaluation = evaluate_models(
        models,
        asked.suites,
        judges,
        asked.tasks,
        task_rows=[task_rows(args.task_loss, args.limit)] if args.task_loss else (),
        settings=settings_of(args),
        store=store,
        unavailable=asked.unavailable,
    )
    return evaluation, evidence


def _models(args: argparse.Namespace) -> "list[ModelSpec]":
    from ..evaluation.evaluate import ModelSpec

    if not args.models or any("model" not in given for given in args.models):
        raise ValueError("`--model` is missing. Give a folder or a Hub name.")
    specs: list[ModelSpec] = []
    for given in args.models:
        path, adapter = given["model"], given.get("adapter")
        name = clean_text(given.get("name") or os.path.basename((adapter or path).rstrip("/")))
        taken = {spec.name for spec in specs}
        unique = next(n for n in (name, *(f"{name} ({k})" for k in range(2, len(args.models) + 1))) if n not in taken)
        specs.append(ModelSpec(unique, path, adapter))
    return specs


main = command("evaluate", options("evaluate", __doc__, add_arguments, _RULES), run, _GO_ON)

if __name__ == "__main__":
    raise SystemExit(main())
