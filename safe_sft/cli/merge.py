"""`safe-sft merge`: merge a tuned model back with the aligned one, or measure which weight to merge with."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .command import command, options
from .exits import Status
from .numbers import count, share
from .unread import Rule

if TYPE_CHECKING:
    from rich.console import Console

    from ..merging.sweep import Sweep

_TENTHS = ",".join(f"{tenth / 10:g}" for tenth in range(11))

_RULES = (
    Rule("task_file prompts max_asr max_new_tokens batch_size", "`--sweep`", lambda args: args.sweep is not None),
    Rule("overwrite push_to_hub max_shard_size", "`--output`", lambda args: args.output is not None),
    Rule("hub_model_id", "`--push_to_hub`", lambda args: args.push_to_hub),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; imports nothing heavy."""
    add = parser.add_argument
    add("--aligned", required=True, help="Folder or Hub name of the aligned model, or of an adapter.")
    add("--tuned", required=True, help="The same of the tuned one; an adapter is one of the aligned model.")
    add("--method", default="linear", help="linear, slerp or task_arithmetic (default: linear).")
    add(
        "--weight",
        help="0 is aligned, 1 is tuned: a number, a YAML file of tensor-name patterns and numbers, or, with --sweep, "
        f"a list (default there: {_TENTHS}).",
    )
    add("--output", help="Folder to write; with --sweep, the selected merge goes there.")
    add("--dtype", help="float32, float16 or bfloat16 (default: that of the tuned model).")
    add("--max_shard_size", default="5GB", help="Of a file of a full model (default: 5GB).")
    add("--overwrite", action="store_true", help="Replace an output folder that is not empty.")
    add("--push_to_hub", action="store_true", help="Upload the output folder.")
    add("--hub_model_id", help="Hub repository (default: the name of the output folder).")
    sweep = parser.add_argument_group("choosing the weight")
    add = sweep.add_argument
    add(
        "--sweep",
        nargs="?",
        const="merge-sweep",
        metavar="DIR",
        help="Measure ASR and task accuracy at each weight; table and curve go to DIR (default: merge-sweep).",
    )
    add("--task_file", help="JSONL of `prompt` and `completion`: right if the answer starts with it.")
    add("--prompts", help="JSONL of harmful requests in `prompt` (default: the built-in held-out ones).")
    add("--max_asr", type=share, help="Select the most accurate weight whose ASR is at most this.")
    add("--max_new_tokens", type=count, default=64, help="Of an answer to a request (default: 64).")
    add("--batch_size", type=count, default=32, help="Prompts answered at a time (default: 32).")


def run(args: argparse.Namespace) -> int:
    """Merge, or sweep and then merge with the selected weight; the status is 1 when no weight keeps the bound.

    Raises:
        ValueError: when arguments are missing or contradict each other.
    """
    from ..storage.terminal import console as terminal
    from ..storage.terminal import shown

    _check(args)
    console = terminal()
    if args.sweep is None:
        _merge(args, args.weight, console)
        return Status.DONE
    sweep = _sweep(args)
    console.print(sweep.table())
    console.print(shown(f"Table and curve: {args.sweep}"))
    if args.max_asr is None:
        return Status.DONE
    if sweep.selected is None:
        console.print(
            f"No weight keeps the ASR at or below {args.max_asr:g}. {sweep.unmeasured}Raise --max_asr, or try smaller "
            "weights."
        )
        return Status.NOT_KEPT
    if args.output is not None:
        _merge(args, sweep.selected.weight, console)
    return Status.DONE


def _check(args: argparse.Namespace) -> None:
    if args.sweep is None:
        if args.weight is None or args.output is None:
            raise ValueError("A merge needs `--weight` and `--output`. Give both, or `--sweep` to choose a weight.")
        if "," in args.weight:
            raise ValueError(f"`--weight {args.weight}` is a list. Give one number, or add `--sweep` to compare them.")
        return
    if args.task_file is None:
        raise ValueError(
            "`--sweep` measures task accuracy, and there is no task. Give a JSONL file of `prompt` and `completion` "
            "as `--task_file`."
        )
    if args.output is not None and args.max_asr is None:
        raise ValueError(
            f"`--output {args.output}` is for the selected weight, and nothing selects one. Add `--max_asr`, such as "
            "`--max_asr 0.05`, or remove `--output`."
        )


def _merge(args: argparse.Namespace, weight: "str | float", console: "Console") -> None:
    from ..merging import merge
    from ..storage.terminal import shown

    merge(
        args.aligned,
        args.tuned,
        args.method,
        weight,
        args.output,
        dtype=args.dtype,
        max_shard_size=args.max_shard_size,
        overwrite=args.overwrite,
        push_to_hub=args.push_to_hub,
        hub_model_id=args.hub_model_id,
    )
    console.print(shown(f"Merged with weight {weight}: {args.output}"))


def _sweep(args: argparse.Namespace) -> "Sweep":
    from ..merging.loaded import load_merge
    from ..merging.sweep import SweepData, measure, read_weights, run_sweep
    from ..storage.folders import check_output, require_folder

    require_folder(args.sweep, "--sweep")
    weights = read_weights(args.weight or _TENTHS, args.method)
    if args.output is not None:
        check_output(Path(args.output), overwrite=args.overwrite)
    data = SweepData.read(args.task_file, args.prompts)
    sweep = run_sweep(
        load_merge(args.aligned, args.tuned, args.method, args.dtype),
        weights,
        lambda merged: measure(merged, data, max_new_tokens=args.max_new_tokens, batch_size=args.batch_size),
        args.max_asr,
    )
    named = ("aligned", "tuned", "method", "dtype", "task_file", "prompts", "max_new_tokens")
    sweep.save(Path(args.sweep), {name: getattr(args, name) for name in named})
    return sweep


main = command("merge", options("merge", __doc__, add_arguments, _RULES), run)

if __name__ == "__main__":
    raise SystemExit(main())
