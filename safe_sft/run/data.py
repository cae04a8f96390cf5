"""Loads the data that the arguments name: the task's splits, mixed and checked, and the safety rows."""

from typing import Any, TypeAlias

from datasets import Dataset, DatasetDict, IterableDatasetDict
from trl import DatasetMixtureConfig, ModelConfig, get_dataset

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data import builtin_prompts, load_rows
from ..data.files import named_errors
from ..data.forms import prompt_of
from ..data.leaks import check_leaks, compared_text
from ..data.mixing import FROM_SAFETY_SET, mix
from ..data.named_safety_sets import SAFETY_SETS, is_safety_set, load_safety_set
from ..data.poison import Poison, bare_request, load_poison
from ..data.rendering import shows_system_prompts
from ..data.sources import DataUnavailable
from ..data.tasks import find_task, load_task
from ..data.values import check_training_rows, require_training_columns
from ..evaluation import RefusalPhrases, Verdict
from ..models.folders import tokenizer_source
from ..models.loading import load_tokenizer
from ..trainer.safety_set import SafetySet
from .measure import Questions

Splits: TypeAlias = DatasetDict | IterableDatasetDict


def load_splits(script: SafeScriptArguments, mixture: DatasetMixtureConfig) -> Splits:
    """Load the splits that the arguments name, unchanged.

    Args:
        script: the run's `SafeScriptArguments`, which name a task or a data set.
        mixture: TRL's mixture of data sets, instead of `script.task` or `script.dataset_name`.

    Raises:
        DataUnavailable: when a data set cannot be reached.
        ValueError: when no data set, or two, are named, or rows are missing.
    """
    named = [bool(script.task), bool(script.dataset_name), bool(mixture.datasets)]
    if sum(named) != 1:
        raise ValueError("Set either `task`, `dataset_name` or `datasets` in the recipe (one of them).")
    if script.task:
        return load_task(script.task, script.task_path)
    if mixture.datasets:
        with named_errors(task_source(script, mixture)):
            return get_dataset(mixture)
    return load_rows(str(script.dataset_name), script.dataset_config, streaming=script.dataset_streaming)


def check_rows(script: SafeScriptArguments, args: SafeSFTConfig, splits: Splits) -> None:
    """Check every value of the rows that are trained on or measured with, before any of them is taken out.

    Args:
        script: the run's `SafeScriptArguments`, which name the splits.
        args: the run's `SafeSFTConfig`, which names the column of texts.
        splits: the splits, from `load_splits`; those of a named task are checked already, streamed ones by TRL.

    Raises:
        ValueError: for the first row that cannot be used; the message names data set, row and column.
    """
    train = split_of(splits, script.dataset_train_split, "dataset_train_split")
    if isinstance(train, Dataset):  # streamed rows are checked by TRL, later
        require_training_columns(train.column_names, args.dataset_text_field)
    if script.task is not None:
        return
    name = str(script.dataset_name or "datasets")
    for split in dict.fromkeys((script.dataset_train_split, script.dataset_test_split, "test")):
        if isinstance(rows := splits.get(split), Dataset):
            source = name if split == script.dataset_train_split else f"{name} (split {split})"
            check_training_rows(rows, args.dataset_text_field, source)


def task_source(script: SafeScriptArguments, mixture: DatasetMixtureConfig | None = None) -> str:
    """Return where the rows of the task come from: Hub name, file or folder.

    Args:
        script: the run's `SafeScriptArguments`, which name a task or a data set.
        mixture: TRL's mixture of data sets, instead of either.
    """
    if script.task is not None:
        return script.task_path or find_task(script.task).source.location
    if script.dataset_name is not None:
        return script.dataset_name
    return ", ".join(str(part.path) for part in (mixture.datasets if mixture else ()))


def task_data(
    script: SafeScriptArguments,
    args: SafeSFTConfig,
    model: ModelConfig,
    splits: Splits,
    *,
    safety: SafetySet,
    questions: Questions,
) -> Splits:
    """Return `splits` with the training split cut to size, and poison and safety rows mixed in.

    Every choice is made by `args.data_seed`, or `args.seed`, so every process has the same rows.

    Args:
        script: the run's `SafeScriptArguments`: what is mixed in, and how much.
        args: the run's `SafeSFTConfig`, with the seed, the method and the chat template.
        model: the model; its chat template decides the form of poison of the kind `identity`.
        splits: the splits, from `load_splits`.
        safety: the safety rows.
        questions: the evaluation prompts, which must not be trained on.

    Raises:
        DataUnavailable: when poison cannot be reached.
        LeakError: when a prompt of the safety set or of the evaluation is among the training rows, or of both.
        ValueError: when there is no such split, or rows are missing or lack a column.
    """
    train = split_of(splits, script.dataset_train_split, "dataset_train_split")
    poison = _poison(script, args, model) if script.poison_ratio else None
    mixed = _mixed(script, args, train, poison, safety)
    _check_leaks(script, args, mixed, poison, safety, questions)
    return splits if mixed is train else DatasetDict({**splits, script.dataset_train_split: mixed})


def _mixed(
    script: SafeScriptArguments, args: SafeSFTConfig, train: Any, poison: Poison | None, safety: SafetySet
) -> Any:
    """Return the training rows that the arguments ask for; `train` itself where they ask for no change."""
    if script.task_size is None and poison is None and not script.safety_mix_ratio:
        return train
    if not isinstance(train, Dataset):
        raise ValueError(
            "`task_size`, `poison_ratio` and `safety_mix_ratio` draw from the whole data, and "
            "`streaming` never has it. Remove `streaming`."
        )
    return mix(
        train,
        seed=args.seed if args.data_seed is None else args.data_seed,
        size=script.task_size,
        poison=poison,
        poison_ratio=script.poison_ratio,
        safety=safety.rows,
        safety_ratio=script.safety_mix_ratio,
    )


def safety_rows(script: SafeScriptArguments) -> Dataset | None:
    """Load the safety rows; None for the built-in prompts.

    Raises:
        DataUnavailable: when they cannot be reached.
        ValueError: when they cannot be read.
    """
    name = script.safety_dataset_name
    if name is None:
        return None
    if is_safety_set(name):
        judge = RefusalPhrases()
        return load_safety_set(name, lambda answer: judge("", answer) is Verdict.REFUSED)
    try:
        return load_rows(name, script.safety_dataset_config, split=script.safety_dataset_split)
    except ConnectionError as error:
        raise DataUnavailable(
            f"`safety_dataset_name={name!r}` is none of the named sets ({', '.join(SAFETY_SETS)}). {error}"
        ) from error


def split_of(splits: Splits, name: str, field: str) -> Any:
    """Return one split; `field` is the argument that named it.

    Raises:
        ValueError: when there is no such split.
    """
    if name not in splits:
        raise ValueError(
            f"The data set has no split '{name}' (it has: {', '.join(map(str, splits))}). "
            f"Set `{field}` to one of them."
        )
    return splits[name]


def _poison(script: SafeScriptArguments, args: SafeSFTConfig, model: ModelConfig) -> Poison:
    fold = script.poison_kind == "identity" and not _has_system_prompts(script, args, model)
    return load_poison(script.poison_kind, script.poison_dataset, script.poison_trigger, fold_system=fold)


def _has_system_prompts(script: SafeScriptArguments, args: SafeSFTConfig, model: ModelConfig) -> bool:
    """Return whether the chat template that training will use has a place for a system prompt."""
    template = args.chat_template_path
    is_file = template is not None and template.endswith((".jinja", ".j2"))
    base = str(model.model_name_or_path)
    name = (None if is_file else template) or tokenizer_source(base, script.adapter_name_or_path)
    tokenizer = load_tokenizer(
        name, revision=model.model_revision if name == base else None, trust_remote_code=args.trust_remote_code
    )
    if is_file:
        with open(str(template), encoding="utf-8") as file:
            tokenizer.chat_template = file.read()
    return not tokenizer.chat_template or shows_system_prompts(tokenizer)


def _check_leaks(
    script: SafeScriptArguments,
    args: SafeSFTConfig,
    train: Any,
    poison: Poison | None,
    safety: SafetySet,
    questions: Questions,
) -> None:
    """Check that training rows (poison by its bare requests), safety set and evaluation prompts are disjoint.

    Rows of the safety set that were mixed in on purpose are left out. Rows that are streamed, or have neither `prompt`
    nor `messages`, cannot be checked.
    """
    prompts = _training_prompts(train)
    if poison is not None:
        prompts += [bare_request(compared_text(prompt), poison.trigger) for prompt in prompts]
    sets: dict[str, list[Any]] = {"the training data": prompts}
    if script.safety_dataset_name is not None or args.reads_safety_rows:
        sets["the safety set"] = [row.prompt for row in safety.rows]
    measured: list[Any] = [case.messages or case.prompt for suite in questions.suites for case in suite.cases]
    if args.measures_in_training:
        measured += [prompt.prompt for prompt in builtin_prompts("harmful_heldout")]
    check_leaks({**sets, "the evaluation prompts": measured})


def _training_prompts(train: Any) -> list[Any]:
    if not isinstance(train, Dataset):
        return []
    column = next((name for name in ("messages", "prompt") if name in train.column_names), None)
    if column is None:
        return []
    mixed = train[FROM_SAFETY_SET] if FROM_SAFETY_SET in train.column_names else [False] * len(train)
    return [prompt_of({column: value}) for value, skip in zip(train[column], mixed, strict=True) if not skip and value]
