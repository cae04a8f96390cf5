"""Builds the run, or the teacher cache, that the arguments describe."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trl import DatasetMixtureConfig, ModelConfig

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..hub.facts import CardContent
from ..models.adapters import check_modules_to_save
from ..models.fit import ModelError
from ..models.loading import load_tokenizer
from ..replay import CachedTeacher
from ..storage.folders import require_apart
from ..trainer.compatibility import weights_are_cut_up
from ..trainer.safe_sft_trainer import SafeSFTTrainer
from ..trainer.safety_set import SafetySet
from .arguments import with_task_template, with_values
from .data import Splits, load_splits, safety_rows, split_of, task_data
from .data_report import data_report
from .earlier import with_earlier
from .gate import push_strategy, require_enough, require_measurable
from .held_out import hold_out
from .measure import Questions, read_questions
from .model import require_template_file, trainer_arguments
from .screen_task import screen_task
from .start import check_start


@dataclass(frozen=True)
class Run:
    """All that a run needs, before it begins.

    Attributes:
        trainer: the trainer, with the model, the data and what the card says of them.
        script: the run's `SafeScriptArguments`, with the bounds of the gate.
        questions: the questions that the model is asked before and after training.
        rows: the training rows as they are before they are tokenised.
        safety: the safety rows.
    """

    trainer: SafeSFTTrainer
    script: SafeScriptArguments
    questions: Questions
    rows: Any = None
    safety: SafetySet = field(default_factory=lambda: SafetySet(()))


def build_run(
    script: SafeScriptArguments,
    args: SafeSFTConfig,
    model: ModelConfig,
    mixture: DatasetMixtureConfig,
    recipe: Mapping[str, Any] | None = None,
) -> Run:
    """Build the run that the arguments describe, ready to train; the arguments stay as they are.

    Args:
        script: names of the data.
        args: the run's `SafeSFTConfig`.
        model: names of the model and the adapter.
        mixture: TRL's mixture of data sets, instead of `script.dataset_name`.
        recipe: the resolved recipe, for the model card.

    Raises:
        OSError: when a model or a data set cannot be reached, or the output would be written into a model.
        TooManyFlagged: with `screen: fail`, when too many training rows are flagged.
        ValueError: when the arguments do not go together, or the data does not fit them.
    """
    if model.model_name_or_path is None:
        raise ValueError("`model_name_or_path` is missing. Set it in the recipe.")
    read = (model.model_name_or_path, script.adapter_name_or_path, script.start_from, args.merge_base, args.merge_safe)
    require_apart(str(args.output_dir), "output_dir", read)
    _check_template(args.chat_template_path)
    args = with_task_template(script, with_values(args, hub_strategy=push_strategy(script, args)))
    loaded, task_rows = hold_out(script, args, load_splits(script, mixture))
    questions = with_earlier(read_questions(script, loaded, task_rows), script, args)
    require_enough(script, questions)
    rows = safety_rows(script)
    safety = SafetySet.read(rows, f"'{script.safety_dataset_name}'", args.task_format)
    splits = task_data(script, args, model, loaded, safety=safety, questions=questions)
    given = trainer_arguments(script, args, model)
    splits, dropped = screen_task(script, args, given, splits)
    trainer = SafeSFTTrainer(
        **given,
        **_datasets(script, args, splits),
        # Rows that are only mixed in are for no method to replay.
        safety_dataset=rows if args.safety_terms or not script.safety_mix_ratio else None,
    )
    check_modules_to_save(trainer.model, model.lora_modules_to_save)
    check_start(trainer, script.start_from)
    require_measurable(script, weights_are_cut_up(trainer))
    report = asdict(replace(data_report(script, splits, safety, mixture), rows_screened_out=dropped))
    trainer.card = CardContent(data=report, recipe=recipe, safety_set=script.safety_dataset_name)
    return Run(trainer, script, questions, splits[script.dataset_train_split], safety)


def _datasets(script: SafeScriptArguments, args: SafeSFTConfig, splits: Splits) -> dict[str, Any]:
    evaluates = args.eval_strategy != "no"
    return {
        "train_dataset": split_of(splits, script.dataset_train_split, "dataset_train_split"),
        "eval_dataset": split_of(splits, script.dataset_test_split, "dataset_test_split") if evaluates else None,
    }


def _check_template(path: str | None) -> None:
    """Check the chat template: TRL takes a missing file for a model's name, and asks whether to run its code."""
    if path is not None and not path.endswith((".jinja", ".j2")):
        try:
            load_tokenizer(path, trust_remote_code=False)
        except ModelError as error:
            raise ValueError(
                f"`chat_template_path={path!r}` cannot be read without running code: {error} To use its template, "
                "write it to a .jinja file, and give that."
            ) from error
    if path is not None and path.endswith((".jinja", ".j2")):
        require_template_file(path)


def build_teacher(
    script: SafeScriptArguments, args: SafeSFTConfig, model: ModelConfig, mixture: DatasetMixtureConfig
) -> str:
    """Build the teacher cache that training with these arguments would build, and return its folder.

    Raises:
        ValueError: when the safety method has no teacher.
    """
    if not any(method.needs_teacher for method, _ in args.safety_terms):
        raise ValueError(f"`safety_method='{args.safety_method}'` needs no teacher cache. Choose `der`.")
    args = with_values(args, teacher="cached", push_to_hub=False)
    trainer = build_run(_without_gate(script), args, model, mixture).trainer
    assert isinstance(trainer.teacher, CachedTeacher)
    return str(trainer.teacher.folder)


def _without_gate(script: SafeScriptArguments) -> SafeScriptArguments:
    if script.screen != "drop":  # which alone changes what the teacher may be asked
        script = replace(script, screen=None, screen_threshold=None, screen_clean=None)
    return replace(
        script, push_requires_gate=False, gate_max_asr=None, gate_max_asr_increase=None, gate_max_utility_drop=None
    )
