"""Say what a recipe will take, before a GPU is paid for: memory, tokens, operations, time, and which GPUs it fits.

    safe-sft plan --config recipes/llama2-7b/der.yaml --task gsm8k [--gpu A100-80GB] [--json]

Takes what `safe-sft train` takes. No weights are loaded, and nothing is downloaded for the models whose shapes ship.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trl import DatasetMixtureConfig, ModelConfig

from ..arguments import SafeScriptArguments
from ..config import SafeSFTConfig
from ..data.files import FILE_BUILDERS
from .train import one_line_errors, parse

#: Longest row that is assumed where neither `max_length` nor the data says.
_ASSUMED_LENGTH = 1024


def options() -> argparse.ArgumentParser:
    """The options of this command, beside those of `safe-sft train`."""
    parser = argparse.ArgumentParser(
        prog="safe-sft plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every argument of `safe-sft train` is an argument here too.",
        allow_abbrev=False,
    )
    parser.add_argument("--gpu", help="a GPU by name, or those of a memory such as 24GB; default: all of the table")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--rows", type=_count, help="rows of the task, where the data is not at hand")
    parser.add_argument("--row_tokens", type=_count, help="tokens of a row; default: counted, else max_length")
    parser.add_argument("--devices", type=_count, default=1, help="GPUs that train together")
    parser.add_argument("--utilization", type=float, help="share of a GPU's peak that times assume (default: 0.35)")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Entry point, also of `python -m safe_sft.cli.plan`; returns the exit status."""
    own, rest = options().parse_known_args(sys.argv[1:] if argv is None else argv)
    with one_line_errors("plan"):
        from ..planning import GPUS, UTILIZATION, find_gpus, make_plan, print_plan

        gpus = list(GPUS.values()) if own.gpu is None else find_gpus(own.gpu)
        utilization = UTILIZATION if own.utilization is None else own.utilization
        if not 0 < utilization <= 1:
            raise ValueError(f"`--utilization {utilization}` must be above 0 and at most 1.")
        # A recipe for a GPU is planned on any machine.
        script, args, model, mixture = parse([*rest, "--use_cpu", "true"], "plan")
        with _quiet():
            task, safety = _rows(own, script, args, model, mixture)
        plan = make_plan(
            args,
            model,
            task,
            safety,
            utilization=utilization,
            devices=own.devices,
            adapter=script.adapter_name_or_path,
        )
    if own.json:
        print(json.dumps(plan.to_dict(gpus), indent=2))
    else:
        print_plan(plan, gpus)
    return 0


def _rows(
    own: argparse.Namespace,
    script: SafeScriptArguments,
    args: SafeSFTConfig,
    model: ModelConfig,
    mixture: DatasetMixtureConfig,
) -> tuple[Any, Any]:
    """Task rows and safety rows: counted where data and tokenizer are on this machine, else assumed."""
    from ..planning import assumed_rows, assumed_safety_rows, count_safety_rows
    from ..training.data import safety_rows

    tokenizer = _local_tokenizer(model, script.adapter_name_or_path)
    length = own.row_tokens or args.max_length or _ASSUMED_LENGTH
    local = _local_task_rows(script, args, mixture, model)
    task = None
    if local is not None and tokenizer is not None and not (own.rows or own.row_tokens):
        task = _counted(local, tokenizer, args.max_length)
    if task is None:
        task = assumed_rows(own.rows or (script.task_size if local is None else len(local)), length, "task rows")
    name = script.safety_dataset_name
    if name is not None and not _is_local(name):
        return task, assumed_safety_rows(None, args.max_length, args.replay_max_new_tokens)
    return task, count_safety_rows(safety_rows(script), tokenizer, args.max_length, args.replay_max_new_tokens)


def _counted(rows: Any, tokenizer: Any, max_length: int | None) -> Any:
    """The rows, tokenised; None where they are in a form that only TRL reads."""
    from ..planning import count_task_rows

    try:
        return count_task_rows(rows, tokenizer, max_length)
    except ValueError:
        return None


def _local_tokenizer(model: ModelConfig, adapter: str | None) -> Any:
    """The tokenizer of the adapter, or of the model, where it is on this machine, else None."""
    from transformers import AutoTokenizer

    from ..merging.folder import tokenizer_source

    try:
        source = tokenizer_source(str(model.model_name_or_path), adapter)
        return AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError):
        return None


def _local_task_rows(
    script: SafeScriptArguments, args: SafeSFTConfig, mixture: DatasetMixtureConfig, model: ModelConfig
) -> Any:
    """The training rows where they are on this machine, else None; poison, which replaces rows, is not drawn."""
    from ..safety_set import SafetySet
    from ..training.data import split_of, task_data

    if script.task:
        names = [script.task_path]
    else:
        names = [data.path for data in mixture.datasets] if mixture.datasets else [script.dataset_name]
    if script.dataset_streaming or not all(name and _is_local(name) for name in names):
        return None
    clean = SafeScriptArguments(
        dataset_name=script.dataset_name,
        dataset_config=script.dataset_config,
        dataset_train_split=script.dataset_train_split,
        task=script.task,
        task_path=script.task_path,
        task_size=script.task_size,
        safety_eval=False,
    )
    splits = task_data(clean, args, mixture, model, SafetySet.read(None))
    return split_of(splits, script.dataset_train_split, "dataset_train_split")


def _is_local(name: str) -> bool:
    return Path(name).suffix in FILE_BUILDERS or Path(name).is_dir()


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars of `datasets` would get between the lines of JSON and those who read them."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar

    disable_progress_bar()
    try:
        yield
    finally:
        enable_progress_bar()


if __name__ == "__main__":
    raise SystemExit(main())
