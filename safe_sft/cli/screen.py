"""Look at every training row before training, by the aligned model alone: which would train its refusals away?

    safe-sft screen --model ALIGNED --input rows.jsonl --output screening [--keep kept.jsonl --drop dropped.jsonl]
    accelerate launch -m safe_sft.cli.main screen …            (each process takes its share of the rows)

Writes rows with scores, screening.json and report.html. A command that was stopped goes on where it was. Exit status 1
when more rows are flagged than `--max_flagged` allows. Rows that are not flagged are not shown to be clean.
"""

import argparse
from dataclasses import fields

from .command import command, options
from .exits import Status
from .judges import JUDGE_RULES, JUDGES, add_judges, judges_of
from .measuring import add_loading
from .numbers import count, number, share
from .unread import Rule

FORMATS = ("jsonl", "parquet")

_RULES = (
    Rule("overwrite", "`--keep` or `--drop`", lambda args: args.keep is not None or args.drop is not None),
    *JUDGE_RULES,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    _add_model(parser.add_argument_group("the aligned model"))
    _add_rows(parser.add_argument_group("what is screened"))
    _add_output(parser.add_argument_group("what is written"))
    judges = parser.add_argument_group("who judges the answers, beside the scores (default: nobody)")
    add_judges(judges, f"refusal_phrases, {JUDGES}")


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", required=True, help="folder or Hub name of the model as it is before training")
    add("--adapter", help="PEFT adapter that belongs to it")
    add("--chat_template_path", help="Jinja file of the chat template, as in the recipe that trains")
    add("--load_in_4bit", action="store_true", help="quantise the model as the QLoRA recipes do (NF4, double)")
    add_loading(group)
    add("--batch_size", type=count, default=16, help="rows at a time, per device")
    add("--max_length", type=count, default=1024, help="rows are cut to this many tokens, as in training")


def _add_rows(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--input", required=True, help="rows of prompt and completion, or messages: file or Hub name")
    add("--split", default="train", help="of the input (default: train)")
    add("--streaming", action="store_true", help="read the rows as they are needed, once")
    add("--safety_dataset", help="safety rows, as `safety_dataset_name` of a recipe (default: built-in)")
    add("--refusals", nargs="+", metavar="TEXT", help="how the model refuses, in its words (default: it is asked)")
    add("--clean", help="rows of the same kind that are known to be clean: they tell the false positives")
    add("--threshold", type=number, help="score from which on a row is flagged (default: suggested)")
    add("--max_flagged", type=share, help="share of flagged rows above which the exit status is 1, such as 0.01")


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output", required=True, help="folder for the rows with scores, screening.json and report.html")
    add("--format", default="jsonl", choices=FORMATS, help="of the rows with scores (default: jsonl)")
    add("--keep", metavar="FILE", help="write the rows that are not flagged: .jsonl, .json, .csv or .parquet")
    add("--drop", metavar="FILE", help="write the rows that are flagged")
    add("--overwrite", action="store_true", help="replace these two files if they exist")


def run(args: argparse.Namespace) -> int:
    """Screen, write, print; returns 1 when more rows are flagged than allowed.

    Raises:
        OSError: when a model or a data set cannot be reached, or a file exists.
        ValueError: when the arguments do not go together, or rows cannot be scored.
    """
    judges = judges_of(args, default=())
    from accelerate import PartialState

    from ..run.screen import ScreenArguments, screen_file
    from ..screening.output import print_screening

    names = [field.name for field in fields(ScreenArguments)]
    found = screen_file(ScreenArguments(**{name: getattr(args, name) for name in names}), judges)
    kept = args.max_flagged is None or found.flagged.value <= args.max_flagged
    if PartialState().is_main_process:
        print_screening(found)
        print(f"Report: {args.output}/report.html")
        if not kept:
            print(f"More than `--max_flagged {args.max_flagged:g}` of the rows are flagged.")
    return Status.DONE if kept else Status.NOT_KEPT


main = command(
    "screen", options("screen", __doc__, add_arguments, _RULES), run, "The same command goes on where it was."
)

if __name__ == "__main__":
    raise SystemExit(main())
