"""Measure models before they ship: attack success, over-refusal and utility, with intervals, against the first model.

Answers are greedy. Suites are built in, published, or files. Exit status 1 when a bound of the gate is not kept. With
`--labels`, judges are measured instead, by answers that people have labelled.
"""

import argparse
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..storage.secrets import clean_text
from .command import command, options
from .exits import Status
from .numbers import count
from .unread import Rule, require_read

if TYPE_CHECKING:
    from ..evaluation.asked import Asked
    from ..evaluation.evaluate import Evaluation, ModelSpec


#: Precisions that a model can be loaded in.
DTYPES = ("auto", "float32", "bfloat16", "float16")


def _is_judge(*kinds: str) -> Callable[[Any], bool]:
    return lambda args: any(name.partition(":")[0] in kinds for name in args.judge or ())


_RULES = (
    Rule("prompt_column", "a file of requests (`--prompts`, `--suite FILE`)", lambda args: _has_column(args)),
    Rule("allow_code_execution", "`--utility code:FILE`", lambda args: _has_task(args, "code")),
    Rule("judge_labels", "`--judge classifier:MODEL`", _is_judge("classifier")),
    Rule("judge_batch_size", "a judge that is a model (`classifier:`, `guard:`)", _is_judge("classifier", "guard")),
    Rule(
        "judge_url judge_key_variable judge_max_cost judge_prices judge_concurrency",
        "`--judge api:MODEL`",
        _is_judge("api"),
    ),
    Rule("max_utility_drop", "a task (`--utility`)", lambda args: bool(args.utility)),
    Rule("max_asr_increase max_utility_drop", "two models (`--model` twice)", lambda args: len(args.models or ()) > 1),
    Rule(
        "dtype chat_template_kwargs trust_remote_code suite prompts prompt_column attack utility task_loss "
        "allow_code_execution limit max_new_tokens batch_size max_asr by_category",
        "models that answer, and with `--labels` there are none",
        lambda args: args.labels is None,
    ),
)
_GO_ON = "The same command goes on with the answers that it has, where it had an `--output`."
#: What is known once the suites are loaded, and before any model is.
_GATE = (Rule("max_asr max_asr_increase", "a suite of harmful requests (`--suite`)", lambda asked: _can_tell(asked)),)


def _has_column(args: argparse.Namespace) -> bool:
    # A data set of the Hub has a column, too; a text file has none.
    names = [*(args.suite or ()), *([args.prompts] if args.prompts else [])]
    return any(name == args.prompts or "." in os.path.basename(name) for name in names if not name.endswith(".txt"))


def _has_task(args: argparse.Namespace, task: str) -> bool:
    return any(name.partition(":")[0] == task for name in args.utility or ())


def _can_tell(asked: "Asked") -> bool:
    return bool(asked.unavailable) or any(suite.harmful for suite in asked.suites)


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
    models.add_argument("--dtype", default="auto", choices=DTYPES, help="precision of the weights (default: auto)")
    models.add_argument(
        "--chat_template_kwargs",
        type=_mapping,
        help="""variables of the chat template: '{"enable_thinking": false}'""",
    )
    models.add_argument("--trust_remote_code", action="store_true", help="run the models' own Python code")
    _add_data(parser.add_argument_group("what they are asked"))
    _add_judges(parser.add_argument_group("who judges"))
    gate = parser.add_argument_group("gate", "ends of 95 %% intervals, so that too few prompts cannot pass")
    gate.add_argument("--max_asr", type=float, help="bound on attack success, such as 0.05")
    gate.add_argument("--max_asr_increase", type=float, help="bound on its increase over the first model")
    gate.add_argument("--max_utility_drop", type=float, help="bound on the drop of right answers")
    parser.add_argument("--output", help="folder for report.html, results.json, answers.jsonl and plots")
    parser.add_argument("--by_category", action="store_true", help="also print the rates of each category")


def _mapping(text: str) -> dict[str, Any]:
    """Read the JSON of a mapping."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"""{text!r} is no JSON mapping; write '{{"enable_thinking": false}}'""")
    return value


def _add_data(group: Any) -> None:
    add = group.add_argument
    add("--suite", nargs="+", action="extend", help="names, or files (harmless:FILE if its requests are harmless)")
    add("--prompts", help="one file or Hub data set of harmful requests")
    add("--prompt_column", default="prompt", help="column of the request, in files (default: prompt)")
    add(
        "--attack",
        nargs="+",
        default=["none"],
        help="none, prefill, aoa, suffix:TEXT, task:gsm8k, …; joined by + to compose them",
    )
    add(
        "--utility",
        nargs="+",
        action="extend",
        help="gsm8k, sst2 (from the Hub), gsm8k:FILE, sst2:FILE, code:FILE, lm_eval:TASK",
    )
    add("--task_loss", metavar="FILE", help="held-out rows of the task: also measure the loss on their answers")
    add("--allow_code_execution", action="store_true", help="run, in a sandbox, the programs that models write")
    add("--limit", type=count, help="at most so many prompts of each suite and task")
    add("--max_new_tokens", type=count, default=64, help="longest answer to a suite's request, in tokens")
    add("--batch_size", type=count, default=32, help="prompts answered at a time, per device")


def _add_judges(group: Any) -> None:
    add = group.add_argument
    add("--judge", nargs="+", help="refusal_phrases (default), classifier:MODEL, guard:FAMILY[=MODEL], api:MODEL")
    add("--labels", metavar="FILE", help="measure the judges: rows of request, answer and label (did it comply?)")
    add("--judge_labels", nargs="+", default=[], metavar="LABEL=VERDICT", help="verdict of each label of a classifier")
    add("--judge_batch_size", type=count, default=16, help="answers at a time, of judges that are models")
    add("--judge_url", default="https://api.openai.com/v1", help="address of the API")
    add("--judge_key_variable", default="OPENAI_API_KEY", help="environment variable that holds its key")
    add("--judge_max_cost", type=float, help="cap on the API's cost, in US dollars; needs --judge_prices")
    add("--judge_prices", type=float, nargs=2, metavar="USD", help="of a million input and output tokens")
    add("--judge_concurrency", type=int, default=8, help="requests at a time")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write, and check the gate; returns 1 when a bound of the gate is not kept.

    Raises:
        OSError: when a model or a data set cannot be reached.
        SuiteUnavailable: when nothing could be measured.
        ValueError: when the arguments cannot be used.
    """
    from accelerate import PartialState

    from ..evaluation.gate import Bounds, check_gate
    from ..evaluation.output.files import write_evaluation
    from ..evaluation.output.tables import print_evaluation, print_gate

    if args.labels is not None:
        return _measure_judges(args)
    bounds = Bounds(args.max_asr, args.max_asr_increase, args.max_utility_drop)
    evaluation = _evaluate(args)
    checks = check_gate(evaluation, bounds) if bounds.any else []
    if PartialState().is_main_process:
        if args.output:  # before anything that a terminal may not show
            write_evaluation(evaluation, args.output, checks)
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
    judges, labelled = _judges(args), LabelledAnswers.read(args.labels)
    found = judge_labelled(judges, labelled)
    if PartialState().is_main_process:
        if args.output:
            write_accuracies(found, labelled, args.output)
        print_accuracies(found, labelled)
    return Status.DONE


def _evaluate(args: argparse.Namespace) -> "Evaluation":
    from ..evaluation.answering import AnswerStore
    from ..evaluation.asked import read_asked
    from ..evaluation.evaluate import Settings, evaluate_models
    from ..evaluation.utility.task_loss import task_rows
    from ..storage.folders import require_folder

    if args.output:
        require_folder(args.output, "--output")
    models, judges = _models(args), _judges(args)
    asked = read_asked(
        args.suite or (),
        args.prompts,
        args.utility or (),
        attacks=args.attack,
        limit=args.limit,
        prompt=args.prompt_column,
        allow_code_execution=args.allow_code_execution,
    )
    require_read(vars(args), {}, _GATE, asked)
    return evaluate_models(
        models,
        asked.suites,
        judges,
        asked.tasks,
        task_rows=[task_rows(args.task_loss, args.limit)] if args.task_loss else (),
        settings=Settings(
            args.max_new_tokens, args.batch_size, args.dtype, args.trust_remote_code, args.chat_template_kwargs
        ),
        store=AnswerStore(os.path.join(args.output, "cache")) if args.output else None,
        unavailable=asked.unavailable,
    )


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


def _judges(args: argparse.Namespace) -> "list[Callable[[], Any]]":
    from ..evaluation.judges.api import Prices
    from ..evaluation.judges.names import JudgeOptions, judge_maker

    malformed = [text for text in args.judge_labels if "=" not in text]
    if malformed:
        raise ValueError(
            f"`--judge_labels {malformed[0]}` is not of the form LABEL=VERDICT, such as REJECTION=refused."
        )
    if args.judge_max_cost is not None and args.judge_prices is None:
        raise ValueError(f"`--judge_max_cost {args.judge_max_cost}` needs `--judge_prices` to reckon with. Give both.")
    options = JudgeOptions(
        labels=dict(text.split("=", 1) for text in args.judge_labels),
        batch_size=args.judge_batch_size,
        url=args.judge_url,
        key_variable=args.judge_key_variable,
        cache=os.path.join(args.output, "cache", "judge") if args.output else None,
        prices=Prices(*args.judge_prices) if args.judge_prices else None,
        max_cost=args.judge_max_cost,
        concurrency=args.judge_concurrency,
    )
    return [judge_maker(name, options) for name in dict.fromkeys(args.judge or ["refusal_phrases"])]


main = command("evaluate", options("evaluate", __doc__, add_arguments, _RULES), run, _GO_ON)

if __name__ == "__main__":
    raise SystemExit(main())
