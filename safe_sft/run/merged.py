"""Merges a model that a run has trained with the aligned one, and measures the merge as that run would have."""

from dataclasses import replace
from pathlib import Path

import torch
from trl import DatasetMixtureConfig, ModelConfig

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..evaluation import load_model
from ..evaluation.output.results import results
from ..evaluation.weights import loaded_weights
from ..hub.results import MERGED
from ..hub.safety import SAFETY_FILE
from ..storage.writing import write_json
from ..trainer.merge_after import merge_as_set
from .data import load_splits
from .earlier import with_earlier
from .held_out import hold_out
from .measure import evaluation_of, read_questions
from .train import write_answers


def measure_merge(
    script: SafeScriptArguments,
    args: SafeSFTConfig,
    model: ModelConfig,
    mixture: DatasetMixtureConfig,
    tuned: str,
) -> None:
    """Merge `tuned` into `merged/` of `output_dir`, measure it, and write `safety.json` and the answers.

    Args:
        script: the run's `SafeScriptArguments`: what is measured.
        args: the run's `SafeSFTConfig`, with `merge_after_training`, its settings and `output_dir`.
        model: name of the aligned model.
        mixture: TRL's mixture of data sets, instead of `script.dataset_name`.
        tuned: folder of what a run with the same arguments, but for the merge, has trained.

    Raises:
        FileNotFoundError: when a model or a data file is missing.
        ValueError: when the arguments ask for no merge, or the models do not fit each other.
    """
    if args.merge_after_training is None:
        raise ValueError("`merge_after_training` is not set. Set it to linear or slerp.")
    loaded, task_rows = hold_out(script, args, load_splits(script, mixture))
    questions = with_earlier(read_questions(script, loaded, task_rows), script, args)
    aligned = script.adapter_name_or_path or str(model.model_name_or_path)
    merge_as_set(args, aligned, tuned)
    merged, tokenizer = load_model(args.merged_dir, trust_remote_code=args.trust_remote_code)
    device = next(merged.parameters()).device.type
    # As the trained model is measured: under the autocast of its training.
    with torch.autocast(device, torch.bfloat16 if args.bf16 else torch.float16, enabled=args.bf16 or args.fp16):
        answers = questions.ask(merged, tokenizer, args, MERGED)
    answers = replace(answers, model=replace(answers.model, weights=loaded_weights(str(args.merged_dir))))
    evaluation = evaluation_of([answers], args)
    folder = Path(str(args.output_dir))
    write_json(folder / SAFETY_FILE, results(evaluation), default=str)
    write_answers(str(folder), evaluation)
