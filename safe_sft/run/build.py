"""The trainer, or the teacher cache, that the arguments describe."""

import os
from dataclasses import asdict

from trl import DatasetMixtureConfig, ModelConfig

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..replay import CachedTeacher
from ..trainer.compatibility import weights_are_cut_up
from ..trainer.safe_sft_trainer import SafeSFTTrainer
from ..trainer.safety_set import SafetySet
from .data import data_report, safety_rows, split_of, task_data
from .gate import prepare_gate, require_measurable
from .model import _model


def build_trainer(
    script: SafeScriptArguments, args: SafeSFTConfig, model: ModelConfig, mixture: DatasetMixtureConfig
) -> SafeSFTTrainer:
    """The trainer that the arguments describe, ready to train.

    Args:
        script: which data.
        args: how to train.
        model: which model and adapter.
        mixture: TRL's mixture of data sets, instead of `script.dataset_name`.

    Raises:
        OSError: when a model or a data set cannot be reached.
        ValueError: when the arguments do not go together, or the data does not fit them.
    """
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),  # type: ignore[dict-item]
    }
    if model.model_name_or_path is None:
        raise ValueError("`model_name_or_path` is missing. Set it in the recipe.")
    _check_template(args.chat_template_path)
    prepare_gate(script, args)
    rows = safety_rows(script)
    safety = SafetySet.read(rows)
    splits = task_data(script, args, mixture, model, safety)
    trainer = SafeSFTTrainer(
        **_model(script, args, model),
        args=args,
        train_dataset=split_of(splits, script.dataset_train_split, "dataset_train_split"),
        eval_dataset=(
            split_of(splits, script.dataset_test_split, "dataset_test_split") if args.eval_strategy != "no" else None
        ),
        # Rows that are only mixed in are for no method to replay.
        safety_dataset=rows if args.safety_terms or not script.safety_mix_ratio else None,
    )
    require_measurable(script, weights_are_cut_up(trainer))
    trainer.card.data = asdict(data_report(script, splits, safety, mixture))
    return trainer


def _check_template(path: str | None) -> None:
    """TRL takes a file that does not exist for the name of a model."""
    if path is not None and path.endswith((".jinja", ".j2")) and not os.path.isfile(path):
        raise ValueError(
            f"The file of `chat_template_path={path!r}` does not exist (looked in {os.getcwd()}). "
            "Paths are relative to the working folder: start there, or give another path."
        )


def build_teacher(
    script: SafeScriptArguments, args: SafeSFTConfig, model: ModelConfig, mixture: DatasetMixtureConfig
) -> str:
    """Build the teacher cache that training with these arguments would build, and return its folder.

    Raises:
        ValueError: when the safety method has no teacher.
    """
    if not any(method.needs_teacher for method, _ in args.safety_terms):
        raise ValueError(f"`safety_method='{args.safety_method}'` needs no teacher cache. Choose `der`.")
    args.teacher, args.push_to_hub, script.push_requires_gate = "cached", False, False
    trainer = build_trainer(script, args, model, mixture)
    teacher = trainer.teacher
    assert isinstance(teacher, CachedTeacher)
    return str(teacher.folder)
