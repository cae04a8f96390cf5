"""Merge a tuned model back with the aligned one, or measure which weight (or threshold) to merge with."""

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.names import EVIDENCE
from .command import command, options
from .exits import Status
from .numbers import count, plain, share
from .unread import Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from ..merging.evidence import MergeEvidence
    from ..merging.sweep import Sweep, SweepData

_TENTHS = ",".join(f"{tenth / 10:g}" for tenth in range(11))
_WITH_BASE = ("magmax", "safe_lora", "safemerge")
_WITH_THRESHOLD = ("safe_lora", "safemerge")


def _is(*methods: str) -> "Callable[[argparse.Namespace], bool]":
    return lambda args: args.method in methods


_RULES = (
    Rule("base", "`--method magmax`, `safe_lora` or `safemerge`", _is(*_WITH_BASE)),
    Rule("safe", "`--method safemerge`", _is("safemerge")),
    Rule("threshold", "`--method safe_lora` or `safemerge`", _is(*_WITH_THRESHOLD)),
    Rule(
        "weight",
        "a method that has a weight; `safe_lora` has a `--threshold`, and no weight",
        lambda args: args.method != "safe_lora",
    ),
    Rule("task_file prompts max_asr max_new_tokens batch_size", "`--sweep`", lambda args: args.sweep is not None),
    Rule("overwrite push_to_hub max_shard_size", "`--output`", lambda args: args.output is not None),
    Rule("hub_model_id ignore_gate", "`--push_to_hub`", lambda args: args.push_to_hub),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; imports nothing heavy."""
    add = parser.add_argument
    add("--aligned", required=True, help="Folder or Hub name of the aligned model, or of an adapter.")
    add(
        "--tuned",
        required=True,
        nargs="+",
        help="The same of the tuned one (several with magmax); an adapter is one of the aligned model.",
    )
    add(
        "--method",
        default="linear",
        help="linear, slerp, task_arithmetic, magmax, safe_lora or safemerge (default: linear).",
    )
    add(
        "--weight",
        type=plain,
        help="0 is aligned (magmax: the base; safemerge: the safe model), 1 is tuned: a number, a YAML file of "
        f"tensor-name patterns and numbers, or, with --sweep, a list (default there: {_TENTHS}). magmax takes 1 "
        "where none is given, safemerge 0.8.",
    )
    add("--base", help="The model before alignment, for magmax, safe_lora and safemerge.")
    add("--safe", help="A model or adapter that was tuned for safety alone, for safemerge.")
    add(
        "--threshold",
        type=plain,
        help="Cosine at (safe_lora) or below (safemerge) which an update is changed, 0 to 1 (default: 0.35). With "
        "safe_lora also a YAML file, as --weight, or, with --sweep, a list (default there: the same as of weights).",
    )
    add("--output", help="Folder to write; with --sweep, the selected merge goes there.")
    add("--dtype", help="float32, float16 or bfloat16 (default: that of the tuned model).")
    add("--max_shard_size", default="5GB", help="Of a file of a full model (default: 5GB).")
    add("--overwrite", action="store_true", help="Replace an output folder that is not empty.")
    add("--push_to_hub", action="store_true", help="Upload the output folder, unmeasured; needs --ignore_gate.")
    add("--ignore_gate", action="store_true", help="Push what no gate has let through.")
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
    from ..storage.folders import require_apart
    from ..storage.terminal import console as terminal
    from ..storage.terminal import shown

    _check(args)
    for name, folder in (("--output", args.output), ("--sweep", args.sweep)):
        if folder is not None:
            require_apart(folder, name, (args.aligned, *args.tuned, args.base, args.safe))
    console = terminal()
    if args.sweep is None:
        _merge(args, None, console)
        return Status.DONE
    sweep, evidence = _sweep(args)
    console.print(sweep.table())
    console.print(shown(f"Table and curve: {args.sweep}"))
    if args.max_asr is None:
        return Status.DONE
    if sweep.selected is None:
        console.print(
            f"No {sweep.number} keeps the ASR at or below {args.max_asr:g}. {sweep.unmeasured}Raise --max_asr, or try "
            f"{'larger' if sweep.number == 'threshold' else 'smaller'} {sweep.number}s."
        )
        return Status.NOT_KEPT
    if args.output is not None:
        assert evidence is not None
        evidence.chosen = sweep.as_dict()
        _merge(args, sweep.selected.weight, console, evidence)
        shutil.rmtree(Path(args.sweep) / EVIDENCE)  # it lies beside the merge now
    return Status.DONE


def _swept(args: argparse.Namespace) -> str:
    """Return the flag whose number the sweep varies."""
    return "threshold" if args.method == "safe_lora" else "weight"


def _check(args: argparse.Namespace) -> None:
    swept = _swept(args)
    given = getattr(args, swept)
    if args.push_to_hub:
        from ..merging.merge import require_gate_ignored

        require_gate_ignored(args.push_to_hub, args.ignore_gate, args.output)
    if args.sweep is None:
        if args.output is None or (given is None and args.method not in _WITH_BASE):
            raise ValueError("A merge needs `--weight` and `--output`. Give both, or `--sweep` to choose a weight.")
        if given is not None and "," in given:
            raise ValueError(f"`--{swept} {given}` is a list. Give one number, or add `--sweep` to compare them.")
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


def _sides(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that say what is merged, as the library takes them."""
    tuned = args.tuned[0] if len(args.tuned) == 1 else args.tuned
    return {"aligned": args.aligned, "tuned": tuned, "method": args.method, "base": args.base, "safe": args.safe}


def _merge(
    args: argparse.Namespace, selected: float | None, console: "Console", evidence: "MergeEvidence | None" = None
) -> None:
    from ..merging import merge
    from ..storage.terminal import shown

    swept = _swept(args)
    number = getattr(args, swept) if selected is None else selected
    numbers: dict[str, Any] = {"weight": args.weight, "threshold": args.threshold, swept: number}
    merge(
        **_sides(args),
        **numbers,
        output=args.output,
        dtype=args.dtype,
        max_shard_size=args.max_shard_size,
        overwrite=args.overwrite,
        push_to_hub=args.push_to_hub,
        hub_model_id=args.hub_model_id,
        ignore_gate=args.ignore_gate,
        evidence=evidence,
    )
    console.print(shown(f"Merged with {swept} {'by default' if number is None else number}: {args.output}"))


def _sweep(args: argparse.Namespace) -> "tuple[Sweep, MergeEvidence | None]":
    """Sweep, with the bound written down before where a merge is chosen by it."""
    from ..merging.loaded import load_merge
    from ..merging.sweep import SweepData, measure, read_weights, run_sweep
    from ..storage.folders import check_output, require_folder

    require_folder(args.sweep, "--sweep")
    swept = _swept(args)
    numbers = read_weights(getattr(args, swept) or _TENTHS, args.method)
    if args.output is not None:
        check_output(Path(args.output), overwrite=args.overwrite)
    data = SweepData.read(args.task_file, args.prompts)
    sides, threshold = _sides(args), args.threshold if swept == "weight" else None
    evidence = None if args.output is None else _begun(args, data)
    sweep = run_sweep(
        load_merge(**sides, dtype=args.dtype, threshold=threshold),
        numbers,
        lambda merged: measure(merged, data, max_new_tokens=args.max_new_tokens, batch_size=args.batch_size),
        args.max_asr,
        swept,
    )
    named = {name: getattr(args, name) for name in ("dtype", "task_file", "prompts", "max_new_tokens")}
    fixed = {name: value for name, value in (*sides.items(), ("threshold", threshold)) if value is not None}
    sweep.save(Path(args.sweep), {**fixed, **named})
    return sweep, evidence


def _begun(args: argparse.Namespace, data: "SweepData") -> "MergeEvidence":
    """Write the bound that chooses the merge, before anything is measured."""
    from ..evidence.digests import rows_digest
    from ..merging.evidence import MergeEvidence
    from ..merging.side import Sides

    evidence = MergeEvidence(Sides.of(args.aligned, args.tuned, args.base, args.safe))
    suite = {
        "name": args.prompts or "builtin harmful_heldout",
        "n": len(data.requests),
        "sha256": rows_digest({"prompt": prompt} for prompt in data.requests),
    }
    task = {"name": args.task_file, "n": len(data.task), "sha256": rows_digest(data.task)}
    answers = {"max_new_tokens": args.max_new_tokens, "decoding": "greedy"}
    evidence.begin(Path(args.sweep), args.max_asr, {"suites": [suite], "tasks": [task], "answers": answers})
    return evidence


main = command("merge", options("merge", __doc__, add_arguments, _RULES), run)

if __name__ == "__main__":
    raise SystemExit(main())
