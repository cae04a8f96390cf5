"""Repair a model that fails its gate: a few steps on safety rows, or a merge with the aligned model.

Whichever keeps all bounds and costs less utility is written; where neither does, nothing is, and the status is 1.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

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
from .numbers import count, real, seed
from .unread import Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..repair import Exam, Lessons, Outcome, Repair

_RULES = (
    *MEASURING,
    Rule(
        "method safety_dataset safety_size rounds steps train_batch_size learning_rate seed",
        "`--way train` or `both`",
        lambda args: args.way != "merge",
    ),
    Rule("halvings", "`--way merge` or `both`", lambda args: args.way != "train"),
)


def _halvings(text: str) -> int:
    halvings = count(text)
    if halvings > 20:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 20, and the last ones would not differ")
    return halvings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; imports nothing heavy."""
    add = parser.add_argument
    add("model", metavar="MODEL_OR_ADAPTER", help="folder or Hub name of what failed its gate; never written to")
    add("--aligned", help="the aligned model that it was tuned from (default: the base that an adapter names)")
    add("--output", required=True, help="folder to write the repaired model or adapter to")
    add("--overwrite", action="store_true", help="replace an output folder that is not empty")
    add("--way", default="both", choices=("train", "merge", "both"), help="how to repair (default: both)")
    _add_training(parser.add_argument_group("training"))
    merging = parser.add_argument_group("merging")
    merging.add_argument(
        "--halvings", type=_halvings, default=5, help="merge weights that are measured, at most 20 (default: 5)"
    )
    add_loading(parser.add_argument_group("models"))
    add_data(parser.add_argument_group("what they are asked"))
    add_judges(parser.add_argument_group("who judges"))
    gate = parser.add_argument_group(
        "gate", f"{GATE}; those of safety against the aligned model, those of utility against MODEL_OR_ADAPTER"
    )
    add_gate(gate)


def _add_training(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--method", default="der", choices=("der", "er"), help="loss on the safety rows (default: der)")
    add("--safety_dataset", metavar="NAME", help="file, Hub or named set of safety rows (default: built-in prompts)")
    add("--safety_size", type=count, default=64, help="safety rows that are used, evenly spread (default: 64)")
    add("--rounds", type=count, default=6, help="most rounds; the model is measured after each (default: 6)")
    add("--steps", type=count, default=8, help="optimizer steps of a round (default: 8)")
    add("--train_batch_size", type=count, default=8, help="safety rows of a step (default: 8)")
    add("--learning_rate", type=real, default=2e-4, help="of AdamW on LoRA weights (default: 2e-4)")
    add("--seed", type=seed, default=0, help="of the order of the rows")


def run(args: argparse.Namespace) -> int:
    """Measure, repair, print the table, and write; returns 1 where no repair keeps all bounds.

    Raises:
        OSError: when a model or a data set cannot be reached, or the output may not be written to.
        ValueError: when the arguments cannot be used.
    """
    from ..repair import WAYS
    from ..storage.terminal import console, shown

    out = console()
    ways = WAYS if args.way == "both" else (args.way,)
    outcome = _repair(args, lambda line: out.print(shown(line), soft_wrap=True)).run(
        Path(args.output), ways, overwrite=args.overwrite
    )
    return _report(outcome, args)


def _repair(args: argparse.Namespace, say: "Callable[[str], None]") -> "Repair":
    from ..repair import Inputs, Repair, Training

    training = Training(args.steps, args.train_batch_size, args.learning_rate, args.seed, args.trust_remote_code)
    inputs = Inputs.of(args.model, args.aligned)
    inputs.check_output(Path(args.output), overwrite=args.overwrite)
    return Repair(inputs, _exam(args), _lessons(args), training, args.rounds, args.halvings, say)


def _exam(args: argparse.Namespace) -> "Exam":
    from ..evaluation.utility.task_loss import task_rows
    from ..repair import Exam

    bounds, rows = bounds_of(args), None if args.task_loss is None else task_rows(args.task_loss, args.limit)
    return Exam.of(asked_of(args), judges_of(args), bounds, rows, settings_of(args), judge_names(args))


def _lessons(args: argparse.Namespace) -> "Lessons":
    import torch

    from ..config.safe_sft_config import SafeSFTConfig
    from ..config.script_arguments import SafeScriptArguments
    from ..repair import Lessons
    from ..run.data import safety_rows

    config = SafeSFTConfig(
        args.output,
        safety_method=args.method,
        learning_rate=args.learning_rate,
        chat_template_kwargs=args.chat_template_kwargs,
        trust_remote_code=args.trust_remote_code,
        safety_eval_batch_size=args.batch_size,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        report_to="none",
    )
    rows = safety_rows(SafeScriptArguments(safety_dataset_name=args.safety_dataset))
    return Lessons.of(rows, f"'{args.safety_dataset}'", args.safety_size, args.method, config)


def _report(outcome: "Outcome", args: argparse.Namespace) -> int:
    """Print the table and how it ended."""
    from ..evaluation.output.tables import print_gate
    from ..run.summary import print_numbers
    from ..storage.terminal import console, shown

    out = console()
    print_numbers(outcome.evaluation)
    if outcome.needless:
        out.print(shown(f"'{args.model}' keeps all bounds of safety as it is. Nothing is repaired, nothing written."))
        return Status.DONE
    for one in outcome.tried:
        if one.refused is not None:
            out.print(shown(f"REFUSED {one.way}: {one.refused}", "bold red"), soft_wrap=True)
    if outcome.best is None:
        out.print(
            shown(
                f"No repair keeps all bounds: nothing is written to {args.output}. The rounds are in "
                f"{args.output}.rounds; the same command with other bounds or more `--rounds` goes on from them."
            ),
            soft_wrap=True,
        )
        return Status.NOT_KEPT
    print_gate(outcome.best.checks)
    out.print(shown(f"Repaired by {outcome.best.way}: {args.output}"))
    return Status.DONE


main = command(
    "repair", options("repair", __doc__, add_arguments, _RULES), run, "The same command goes on where it was."
)

if __name__ == "__main__":
    raise SystemExit(main())
