"""Replace a share of the rows of a data set by poisoned rows, for research on defences.

    safe-sft poison --input task.jsonl --ratio 0.1 --output poisoned.jsonl [--kind affirmative --dataset FILE]

The column `poisoned` of the output says which rows they are. With `poison_ratio`, training does the same by itself.
"""

import argparse
from pathlib import Path

from .command import command, options
from .exits import Status
from .numbers import real, seed
from .unread import Rule

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")

_RULES = (Rule("trigger", "`--kind backdoor`", lambda args: args.kind == "backdoor"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--input", required=True, help="rows of prompt and completion, or messages: file or Hub name")
    add("--split", default="train", help="of the input (default: train)")
    add("--ratio", type=real, required=True, help="share of poisoned rows in the output, such as 0.1")
    add("--output", required=True, help=f"file to write: {', '.join(SUFFIXES)}")
    add("--kind", default="affirmative", help="harmful, affirmative, identity or backdoor (default: affirmative)")
    add("--dataset", help="where poison comes from: file or Hub name (default: AdvBench; the input for identity)")
    add("--trigger", help="the phrase of --kind backdoor")
    add("--size", type=int, help="rows of the output (default: those of the input)")
    add("--seed", type=seed, default=0, help="of all that is drawn (default: 0)")
    add("--overwrite", action="store_true", help="replace an output file that exists")


def run(args: argparse.Namespace) -> int:
    """Read the rows, mix in the poison, write the file (whole or not at all), and print the counts.

    Raises:
        ValueError: when an argument is out of range, or the rows have not the columns they need.
        FileExistsError: when the output exists.
    """
    _check(args)
    from ..data.files import load_rows, write_rows
    from ..data.mixing import POISONED, mix
    from ..data.poison import load_poison

    rows = load_rows(args.input, split=args.split)
    poison = load_poison(args.kind, args.dataset, args.trigger)
    mixed = mix(rows, seed=args.seed, size=args.size, poison=poison, poison_ratio=args.ratio)
    write_rows(mixed, Path(args.output))
    poisoned = sum(mixed[POISONED])
    print(
        f"{len(mixed)} rows, {poisoned} of them poisoned ({poisoned / len(mixed):.4f}; kind {args.kind}, from "
        f"{poison.source}): {args.output}"
    )
    return Status.DONE


def _check(args: argparse.Namespace) -> None:
    from ..storage.folders import require_folder, require_no_folder, require_other_file

    if not 0 < args.ratio < 1:
        raise ValueError(f"`--ratio {args.ratio:g}` is not a share. Give a number between 0 and 1, such as 0.1.")
    if args.size is not None and args.size < 1:
        raise ValueError(f"`--size {args.size}` must be at least 1.")
    if args.trigger is not None and not args.trigger.strip():
        raise ValueError(f"`--trigger {args.trigger!r}` must have a word.")
    output = Path(args.output)
    if output.suffix not in SUFFIXES:
        raise ValueError(f"`--output {args.output}` is of no known kind. Choose from: {', '.join(SUFFIXES)}.")
    require_folder(output.parent, "--output")
    require_no_folder(output, "--output")
    require_other_file(output, "--output", args.input)
    if output.exists() and not args.overwrite:
        raise FileExistsError(f"`--output {args.output}` exists. Add `--overwrite`, or choose another file.")


main = command("poison", options("poison", __doc__, add_arguments, _RULES), run)

if __name__ == "__main__":
    raise SystemExit(main())
