"""The data that the arguments name: the task's splits, the safety rows, the prompts to measure with."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from datasets import Dataset, DatasetDict, IterableDatasetDict
from datasets.exceptions import DatasetNotFoundError
from transformers import AutoTokenizer
from trl import DatasetMixtureConfig, ModelConfig, get_dataset

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data import builtin_prompts, load_rows
from ..data.forms import prompt_of
from ..data.leaks import check_leaks
from ..data.mixing import FROM_SAFETY_SET, POISONED, mix
from ..data.named_safety_sets import SAFETY_SETS, is_safety_set, load_safety_set
from ..data.poison import Poison, load_poison
from ..data.sources import DataUnavailable
from ..data.tasks import TASKS, load_task
from ..data.tokenization import shows_system_prompts
from ..evaluation import RefusalPhrases, Verdict
from ..models.folders import tokenizer_source
from ..trainer.safety_set import SafetySet
from .measure import read_suites

Splits: TypeAlias = DatasetDict | IterableDatasetDict


def task_data(
    script: SafeScriptArguments,
    args: SafeSFTConfig,
    mixture: DatasetMixtureConfig,
    model: ModelConfig,
    safety: SafetySet,
) -> Splits:
    """The task's splits: of the training split so many rows as are asked for, with poison and safety rows in.

    Every choice is made by `args.data_seed`, or `args.seed`, so every process has the same rows.

    Args:
        script: which data.
        args: with the seed, the method and the chat template.
        mixture: TRL's mixture of data sets, instead of `script.task` or `script.dataset_name`.
        model: whose chat template poison of the kind `identity` has to fit.
        safety: the safety rows.

    Raises:
        DataUnavailable: when a data set by name cannot be reached.
        LeakError: when a prompt of the safety set or of the evaluation is among the training rows, or of both.
        ValueError: when no data set, or two, are named, rows are missing, or have not the columns they need.
    """
    splits = _load_task(script, mixture)
    train = split_of(splits, script.dataset_train_split, "dataset_train_split")
    _check_columns(train, args.dataset_text_field)
    poison = _poison(script, args, model) if script.poison_ratio else None
    if script.task_size is not None or poison is not None or script.safety_mix_ratio:
        if not isinstance(train, Dataset):
            raise ValueError(
                "`task_size`, `poison_ratio` and `safety_mix_ratio` draw from the whole data, and "
                "`streaming` never has it. Remove `streaming`."
            )
        train = splits[script.dataset_train_split] = mix(
            train,
            seed=args.seed if args.data_seed is None else args.data_seed,
            size=script.task_size,
            poison=poison,
            poison_ratio=script.poison_ratio,
            safety=safety.rows,
            safety_ratio=script.safety_mix_ratio,
        )
    _check_leaks(script, args, train, poison, safety)
    return splits


def safety_rows(script: SafeScriptArguments) -> Dataset | None:
    """The safety rows, or None for the built-in prompts.

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
    except (ConnectionError, DatasetNotFoundError) as error:
        raise DataUnavailable(
            f"`safety_dataset_name={name!r}` is no file, cannot be had from the Hub ({error}), and is none of the "
            f"named sets: {', '.join(SAFETY_SETS)}. Correct the name, or check the network."
        ) from error


def split_of(splits: Splits, name: str, field: str) -> Any:
    """One split; `field` is the argument that named it.

    Raises:
        ValueError: when there is no such split.
    """
    if name not in splits:
        raise ValueError(
            f"The data set has no split '{name}' (it has: {', '.join(map(str, splits))}). "
            f"Set `{field}` to one of them."
        )
    return splits[name]


@dataclass(frozen=True)
class DataReport:
    """What a model was trained on, for its card.

    Attributes:
        task: its name, or None for a data set of the user's.
        source: of the task's rows: Hub name, file or folder.
        revision: of the source; None where none is pinned.
        rows: of the training split; None when they are streamed.
        poisoned_rows: how many of them are poison.
        poison_kind: their kind.
        poison_source: where they come from; None for the default of their kind.
        poison_trigger: the phrase of a backdoor; None for the default one.
        safety_rows_mixed: how many rows are of the safety set.
        safety_set: name of the safety set.
        safety_size: its rows.
        safety_hash: digest of its prompts and answers.
    """

    task: str | None
    source: str
    revision: str | None
    rows: int | None
    poisoned_rows: int
    poison_kind: str | None
    poison_source: str | None
    poison_trigger: str | None
    safety_rows_mixed: int
    safety_set: str
    safety_size: int
    safety_hash: str


def data_report(
    script: SafeScriptArguments, splits: Splits, safety: SafetySet, mixture: DatasetMixtureConfig | None = None
) -> DataReport:
    """What is in the splits that `task_data` returned.

    Args:
        script: which data.
        splits: from `task_data`.
        safety: the safety rows.
        mixture: TRL's mixture of data sets, if it was used.
    """
    train = splits[script.dataset_train_split]
    source, revision = _source(script, mixture)
    poisoned = _marked(train, POISONED)
    chosen = bool(script.poison_ratio)
    return DataReport(
        task=script.task,
        source=source,
        revision=revision,
        rows=len(train) if isinstance(train, Dataset) else None,
        poisoned_rows=poisoned,
        poison_kind=script.poison_kind if chosen else None,
        poison_source=script.poison_dataset if chosen else None,
        poison_trigger=script.poison_trigger if chosen else None,
        safety_rows_mixed=_marked(train, FROM_SAFETY_SET),
        safety_set=str(script.safety_dataset_name or safety.name),
        safety_size=len(safety.rows),
        safety_hash=safety.digest,
    )


def _source(script: SafeScriptArguments, mixture: DatasetMixtureConfig | None) -> tuple[str, str | None]:
    if script.task is not None:
        source = TASKS[script.task].source
        return (script.task_path, None) if script.task_path else (source.location, source.revision)
    if script.dataset_name is not None:
        return script.dataset_name, None
    return ", ".join(str(part.path) for part in (mixture.datasets if mixture else ())), None


def _marked(train: Any, column: str) -> int:
    """How many rows a column of booleans marks."""
    has_it = isinstance(train, Dataset) and column in train.column_names
    return sum(bool(mark) for mark in train[column]) if has_it else 0


def _load_task(script: SafeScriptArguments, mixture: DatasetMixtureConfig) -> Splits:
    named = [bool(script.task), bool(script.dataset_name), bool(mixture.datasets)]
    if sum(named) != 1:
        raise ValueError("Set either `task`, `dataset_name` or `datasets` in the recipe (one of them).")
    if script.task:
        return load_task(script.task, script.task_path)
    if mixture.datasets:
        return get_dataset(mixture)
    return load_rows(str(script.dataset_name), script.dataset_config, streaming=script.dataset_streaming)


def _check_columns(train: Any, text: str) -> None:
    """Check that the rows have a form that TRL trains on; those that are streamed show it later."""
    forms = ({"messages"}, {"conversations"}, {"prompt", "completion"}, {"input_ids"}, {text})
    if isinstance(train, Dataset) and not any(form <= set(train.column_names) for form in forms):
        raise ValueError(
            f"The training data has the columns {train.column_names}. It needs `prompt` and `completion`, `messages`, "
            f"or `{text}` (set `dataset_text_field` to the column of your texts)."
        )


def _poison(script: SafeScriptArguments, args: SafeSFTConfig, model: ModelConfig) -> Poison:
    fold = script.poison_kind == "identity" and not _has_system_prompts(script, args, model)
    return load_poison(script.poison_kind, script.poison_dataset, script.poison_trigger, fold_system=fold)


def _has_system_prompts(script: SafeScriptArguments, args: SafeSFTConfig, model: ModelConfig) -> bool:
    """Whether the chat template that training will use has a place for a system prompt."""
    template = args.chat_template_path
    is_file = template is not None and template.endswith((".jinja", ".j2"))
    base = str(model.model_name_or_path)
    name = (None if is_file else template) or tokenizer_source(base, script.adapter_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(
        name, revision=model.model_revision if name == base else None, trust_remote_code=args.trust_remote_code
    )
    if is_file:
        with open(str(template), encoding="utf-8") as file:
            tokenizer.chat_template = file.read()
    return not tokenizer.chat_template or shows_system_prompts(tokenizer)


def _check_leaks(
    script: SafeScriptArguments, args: SafeSFTConfig, train: Any, poison: Poison | None, safety: SafetySet
) -> None:
    """Check the training rows (poison by its bare requests), the safety set and the evaluation prompts.

    Rows of the safety set that were mixed in on purpose are left out. Rows that are streamed, or have no `prompt` or
    `messages`, have no prompts to look at.
    """
    sets: dict[str, list[Any]] = {"the training data": _training_prompts(train)}
    if poison is not None:
        sets["the training data"] += [pair.prompt for pair in poison.pairs]
    if script.safety_dataset_name is not None or args.reads_safety_rows:
        sets["the safety set"] = [row.prompt for row in safety.rows]
    asked = [case for suite in read_suites(script) for case in suite.cases] if script.safety_eval else []
    measured: list[Any] = [case.messages or case.prompt for case in asked]
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
