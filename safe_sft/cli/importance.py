"""Estimate how much each weight matters for the safety answers (EWC, MAS), and keep it in a file.

    safe-sft importance --model … --safety_dataset … --output DIR
    accelerate launch -m safe_sft.cli.main importance …        (each process takes its share of the rows)

Give the folder to training as `importance_path`, or put it on the Hub with `safe-sft push`. A command that was stopped
goes on where it was when it is started again.
"""

import argparse

from .command import command, options
from .exits import Status
from .numbers import count, real, seed
from .unread import Rule

ESTIMATORS = ("empirical", "sampled", "mas")
SPACES = ("weight", "adapter")
DTYPES = ("auto", "float32", "bfloat16", "float16")

_RULES = (
    Rule(
        "lora_target_modules lora_modules_to_save",
        "a fresh LoRA (no `--adapter`, and not `--space adapter`)",
        lambda args: args.adapter is None and args.space != "adapter",
    ),
    Rule("seed", "`--estimator sampled`, which alone draws", lambda args: args.estimator == "sampled"),
    Rule("decay", "`--previous`", lambda args: args.previous is not None),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, help="aligned model: folder or Hub name")
    parser.add_argument("--adapter", help="LoRA adapter that was trained before and is tuned further")
    parser.add_argument(
        "--lora_target_modules",
        nargs="+",
        default=["all-linear"],
        help="modules that a fresh LoRA will adapt (space `weight`; rank and scaling do not matter)",
    )
    parser.add_argument("--lora_modules_to_save", nargs="+", help="modules that will be trained in full beside it")
    parser.add_argument(
        "--safety_dataset",
        help="safety rows: as `safety_dataset_name` of a recipe (default: built-in)",
    )
    parser.add_argument("--chat_template_path", help="Jinja file of the chat template, as in the recipe that trains")
    parser.add_argument("--estimator", choices=ESTIMATORS, default="empirical", help="mas, or one of those of EWC")
    parser.add_argument(
        "--space",
        choices=SPACES,
        help="default: weight for a fresh LoRA, else adapter; without --adapter, `adapter` means full tuning",
    )
    parser.add_argument("--output", required=True, help="folder for importance.safetensors")
    parser.add_argument("--batch_size", type=count, default=8, help="rows at a time, per device")
    parser.add_argument("--max_length", type=count, default=1024, help="rows are cut to this many tokens")
    parser.add_argument("--max_new_tokens", type=count, default=128, help="longest answer to a prompt without one")
    parser.add_argument("--normalization", choices=("mean", "none"), default="mean", help="mean: mean importance is 1")
    parser.add_argument("--previous", help="importance of the stage before: folder or Hub name (online EWC)")
    parser.add_argument("--decay", type=real, default=1.0, help="what the stage before still counts, from 0 to 1")
    parser.add_argument("--seed", type=seed, default=0, help="of the answers drawn by `sampled`")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="precision of the weights (default: auto)")
    parser.add_argument(
        "--load_in_4bit", action="store_true", help="quantise the model as the QLoRA recipes do (NF4, double)"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run the model's own Python code")


def run(args: argparse.Namespace) -> int:
    """Estimate, write, and say what was written.

    Raises:
        OSError: when a model or a data set cannot be reached.
        ValueError: when the arguments do not go together, or the rows cannot be used.
    """
    from accelerate import PartialState

    from ..run.importance import ImportanceArguments, make_importance

    path, importance = make_importance(ImportanceArguments(**vars(args)))
    if PartialState().is_main_process:
        made = importance.provenance
        print(
            f"{path}: {made.estimator} importance in the space '{made.space}' from {made.sequences} rows "
            f"({made.tokens} tokens), {path.stat().st_size / 1e6:.1f} MB, factor {importance.factor:.3g}"
        )
    return Status.DONE


main = command(
    "importance", options("importance", __doc__, add_arguments, _RULES), run, "The same command goes on where it was."
)

if __name__ == "__main__":
    raise SystemExit(main())
