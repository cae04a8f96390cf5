"""`safe-sft merge`: merge a tuned model back with the aligned one, or measure which weight to merge with."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from ..merging.loaded import LoadedMerge
    from ..merging.sweep import Scores, Sweep

_TENTHS = ",".join(f"{tenth / 10:g}" for tenth in range(11))


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
    add("--max_shard_size", "--max-shard-size", default="5GB", help="Of a file of a full model (default: 5GB).")
    add("--overwrite", action="store_true", help="Replace an output folder that is not empty.")
    add("--push_to_hub", "--push-to-hub", action="store_true", help="Upload the output folder.")
    add("--hub_model_id", "--hub-model-id", help="Hub repository (default: the name of the output folder).")
    sweep = parser.add_argument_group("choosing the weight")
    add = sweep.add_argument
    add(
        "--sweep",
        nargs="?",
        const="merge-sweep",
        metavar="DIR",
        help="Measure ASR and task accuracy at each weight; table and curve go to DIR (default: merge-sweep).",
    )
    add("--task_file", "--task-file", help="JSONL of `prompt` and `completion`: right if the answer starts with it.")
    add("--prompts", help="JSONL of harmful requests in `prompt` (default: the built-in held-out ones).")
    add("--max_asr", "--max-asr", type=float, help="Select the most accurate weight whose ASR is at most this.")
    add("--max_new_tokens", "--max-new-tokens", type=int, default=64, help="Of an answer to a request (default: 64).")
    add("--batch_size", "--batch-size", type=int, default=32, help="Prompts answered at a time (default: 32).")


def run(args: argparse.Namespace) -> int:
    """Merge, or sweep and then merge with the selected weight.

    Returns:
        0, or 1 when no weight keeps the bound on the ASR.

    Raises:
        ValueError: when arguments are missing or contradict each other.
    """
    from rich.console import Console

    _check(args)
    console = Console()
    if args.sweep is None:
        _merge(args, args.weight, console)
        return 0
    sweep = _sweep(args)
    console.print(sweep.table())
    console.print(f"Table and curve: {args.sweep}", markup=False)
    if args.max_asr is None:
        return 0
    if sweep.selected is None:
        console.print(
            f"No weight keeps the ASR at or below {args.max_asr:g}. Raise --max_asr, or try smaller weights."
        )
        return 1
    if args.output is not None:
        _merge(args, sweep.selected.weight, console)
    return 0


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
    console.print(f"Merged with weight {weight}: {args.output}", markup=False)


def _sweep(args: argparse.Namespace) -> "Sweep":
    from pathlib import Path

    from ..data import builtin_prompts
    from ..merging.loaded import load_merge
    from ..merging.sweep import _measure, run_sweep
    from ..storage.folders import check_output

    weights = _weights(args)
    if args.output is not None:
        check_output(Path(args.output), overwrite=args.overwrite)
    task = _rows(args.task_file, "prompt", "completion")
    if args.prompts is None:
        prompts = [prompt.prompt for prompt in builtin_prompts("harmful_heldout")]
    else:
        prompts = [row["prompt"] for row in _rows(args.prompts, "prompt")]

    def evaluate(merged: "LoadedMerge") -> "Scores":
        return _measure(merged, prompts, task, args)

    sweep = run_sweep(load_merge(args.aligned, args.tuned, args.method, args.dtype), weights, evaluate, args.max_asr)
    named = ("aligned", "tuned", "method", "dtype", "task_file", "prompts", "max_new_tokens")
    sweep.save(Path(args.sweep), {name: getattr(args, name) for name in named})
    return sweep


def _rows(name: str, *columns: str) -> list[dict]:
    from ..data import load_rows

    rows = load_rows(name, split="train")
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise ValueError(f"'{name}' has the columns {rows.column_names}. It needs one named `{missing[0]}`.")
    return list(rows)


def _weights(args: argparse.Namespace) -> list[float]:
    from ..merging import MergeWeights

    weights = []
    for text in (args.weight or _TENTHS).split(","):
        weight = MergeWeights.read(text.strip(), args.method)
        if weight.patterns or weight.default is None:
            raise ValueError(f"`--sweep` compares numbers, and `--weight {text}` is a file of patterns. Give a list.")
        weights.append(weight.default)
    return weights
