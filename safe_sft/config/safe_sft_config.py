"""`SafeSFTConfig`: TRL's `SFTConfig` and the fields of the safety term."""

import os
from dataclasses import dataclass, fields
from typing import Any

from trl import SFTConfig

from ..data.task_format import TaskFormat
from ..importance import SPACES
from ..methods import SafetyMethod
from ..methods.registry import AUTO, METHODS, method_classes, method_weights
from ..methods.teacher_distance import DIVERGENCES
from ..storage.secrets import without_secrets
from .combinations import check_divergences, check_task_format, check_teacher, task_format
from .docstring_help import help_from_docstring
from .merging import MERGE_FIELDS, MERGES, check_merge
from .ranges import as_mapping, check_betas, check_between, check_replay_size, check_training_ranges, check_whole
from .types import check_types, naming_fields

TEACHERS = ("cached", "online")
ESTIMATORS = ("empirical", "sampled")
PENALTY_NORMALIZATIONS = ("relative", "mean", "none")

#: Fields that may be set with every method.
_SHARED = {
    "safety_method",
    "safety_weight",
    "safety_budget",
    "safety_eval_max_new_tokens",
    "safety_eval_batch_size",
    "safety_eval_size",
    "safety_eval_steps",
    "safety_max_asr",
    "merge_after_training",
    *MERGE_FIELDS,
    "save_on_signal",
    "chat_template_kwargs",
    "preparation_store",
}

#: Fields that take more than they are annotated with: ours, which has a check of its own, and two of `transformers`.
_OF_SEVERAL_TYPES = frozenset({"safety_weight", "fsdp", "debug"})


@help_from_docstring
@dataclass
class SafeSFTConfig(SFTConfig):
    """Configuration of `SafeSFTTrainer`: every field of TRL's `SFTConfig`, and those below.

    A field that the chosen method does not read must keep its default.

    Args:
        safety_method: Name of a safety method, or several joined by `+`, such as `der+l2`; `none` is plain SFT.
        safety_weight: Weight of each term: a number, `"0.5+0.05"` or a list. Each method has a default. `auto` follows
            the term, so that it keeps its budget.
        safety_budget: What `safety_weight: auto` keeps the term at, in its own unit (nats for `kl`). Each method has
            a default.
        replay_ratio: Safety rows that are replayed for each task row of an optimizer step, over its micro-steps and
            devices; rounded up or down so that it holds over several steps. An eighth is enough with
            `safety_from_task`, or over several thousand task rows; short runs without it need the default.
        replay_max_new_tokens: Longest answer that the aligned model gives to a safety prompt that comes without one,
            in tokens.
        replay_max_answer_tokens: Most tokens of an answer that are replayed, from its beginning, where a refusal is
            decided; None (`null`) replays all of it.
        safety_from_task: Whether requests of the task that the aligned model refuses are replayed as well, with its
            refusals: every second replayed row is one of them.
        safety_rows_in_task_format: Share of the replayed safety rows whose request wears the format of the task's own
            rows, as an attack may; from 0 to 1.
        safety_task_template: That format: `gsm8k`, `sst2`, `code`, or a text with `{request}`. Defaults to the format
            of the recipe's `task`.
        teacher: Where the aligned model's outputs come from: `online` (the same model, adapter off) or `cached`
            (computed once, kept on disk). Defaults to `online` for a fresh adapter, else `cached`.
        teacher_cache: Folder of the cached teacher, built where it is missing; every rank must see it. Defaults to a
            folder in `output_dir`. `hf://owner/name` (and `@revision`) is one that was pushed to the Hub.
        teacher_memory: Most memory of the host, in GiB for each process, in which the online teacher keeps what it
            computed for replayed rows; further rows are computed again each time. 0 keeps nothing.
        teacher_divergence: Distance to the aligned model's outputs: `squared` (of the logits), `relative_squared`
            (the same, as a share of the aligned model's own), `kl`, `reverse_kl` or `jsd`; for `lwf` also `hidden`
            (of the last hidden states, squared). Each method has a default.
        teacher_temperature: Temperature of both distributions; not for the squared distances.
        csft_betas: For `csft`: how tightly the first, second, … token of an answer is held to the aligned model; the
            last number is that of all further tokens. Defaults to the paper's 0.5, 2, 2, 2, 2, 0.1.
        importance_space: What a weight penalty is taken over: `adapter` (the trainable parameters) or `weight` (the
            effective weights `W + s·B·A`). Defaults to `weight` for a fresh LoRA, else `adapter`.
        importance_estimator: For `ewc`: labels from the safety rows (`empirical`) or drawn from the model (`sampled`).
        penalty_normalization: Unit of the weight penalties: `relative` (a share of the aligned weights' own size,
            which means the same on every model), `mean` (importance with mean 1) or `none` (as in the papers).
        importance_path: Folder or Hub repository that `safe-sft importance` wrote; spares the estimation.
        importance_previous: Folder or Hub repository with the importance of the stage before, to add (online EWC).
        importance_decay: Factor on it, from 0 (forget it) to 1.
        lisa_safety_steps: For `lisa`: optimizer steps on safety rows, before the steps on the task.
        lisa_task_steps: For `lisa`: optimizer steps on the task, before the next ones on safety rows.
        ema_decay: Share of the running average of the weights that each optimizer step keeps. The average starts at
            the aligned weights, and without warm-up keeps `ema_decay` to the power of the steps of them.
        ema_warmup: Whether the first steps keep less, so that the average soon forgets the aligned weights.
        ema_on_cpu: Whether the running average is kept in the memory of the CPU.
        ema_evaluate: Whether evaluation during training uses the average of the weights.
        merge_after_training: `linear`, `slerp`, `magmax`, `safe_lora` or `safemerge`: merge the tuned model with the
            aligned one, into `merged/` in `output_dir`.
        merge_weight: Where the merge lies: 0 is the aligned model (`magmax`: the base; `safemerge`: the safe model), 1
            the tuned one. By default 0.5, of `magmax` 1, of `safemerge` 0.8.
        merge_base: Folder or Hub name of the model before alignment, for `magmax`, `safe_lora` and `safemerge`.
        merge_safe: Folder or Hub name of a model or adapter that was tuned for safety alone, for `safemerge`.
        merge_threshold: Cosine at (`safe_lora`) or below (`safemerge`) which the update of a weight is changed; by
            default 0.35.
        chat_template_kwargs: Further variables of the chat template, such as `{enable_thinking: false}`: for task
            rows, safety rows, the aligned model's own answers and what is measured. A row's column of this name wins.
        preparation_store: Folder that keeps what is computed before training (importance, teacher caches, the aligned
            model's own answers), by the digest of all that it depends on: runs that compute the same share it.
        safety_eval_steps: Measure attack success every so many steps, and log it as `eval_asr`.
        safety_max_asr: Stop training when the measured attack success rate is above this.
        safety_eval_size: How many of the built-in held-out prompts that measurement uses.
        safety_eval_max_new_tokens: Longest answer when attack success is measured, in tokens.
        safety_eval_batch_size: Prompts answered at a time when attack success is measured, per device.
        save_on_signal: Whether SIGINT (Ctrl-C) and SIGTERM save a checkpoint after the current step before they end
            training; a second signal ends it at once.
    """

    safety_method: str = "der"
    safety_weight: float | str | None = None
    safety_budget: float | None = None
    replay_ratio: float = 0.25
    replay_max_new_tokens: int = 128
    replay_max_answer_tokens: int | None = 16
    safety_from_task: bool = False
    safety_rows_in_task_format: float = 0.0
    safety_task_template: str | None = None
    teacher: str | None = None
    teacher_cache: str | None = None
    teacher_memory: float = 2.0
    teacher_divergence: str | None = None
    teacher_temperature: float = 1.0
    csft_betas: list[float] | None = None
    importance_space: str | None = None
    importance_estimator: str = "empirical"
    penalty_normalization: str = "relative"
    importance_path: str | None = None
    importance_previous: str | None = None
    importance_decay: float = 1.0
    lisa_safety_steps: int = 2
    lisa_task_steps: int = 18
    ema_decay: float = 0.999
    ema_warmup: bool = False
    ema_on_cpu: bool = False
    ema_evaluate: bool = True
    merge_after_training: str | None = None
    merge_weight: float | None = None
    merge_base: str | None = None
    merge_safe: str | None = None
    merge_threshold: float | None = None
    chat_template_kwargs: dict[str, Any] | str | None = None
    preparation_store: str | None = None
    safety_eval_steps: int | None = None
    safety_max_asr: float | None = None
    safety_eval_size: int = 64
    safety_eval_max_new_tokens: int = 64
    safety_eval_batch_size: int = 32
    save_on_signal: bool = False

    def __post_init__(self) -> None:
        # YAML reads a bare `off`, `no` or `none` as something else than text.
        if not isinstance(self.safety_method, str):
            raise ValueError(
                f"`safety_method={self.safety_method!r}` is not a name. For plain fine-tuning, write "
                "`safety_method: none`."
            )
        self.safety_method = self.safety_method.strip().lower()
        self.chat_template_kwargs = as_mapping("chat_template_kwargs", self.chat_template_kwargs)
        self._check_choices()
        self._check_ranges()
        check_types(self, SafeSFTConfig, _OF_SEVERAL_TYPES)
        self._check_combinations()
        self._check_unread_fields()
        with naming_fields(self, SFTConfig):
            super().__post_init__()

    def __getstate__(self) -> dict[str, Any]:
        """Leave secrets out: `Trainer` pickles its arguments into `training_args.bin`, and pushes that file."""
        return {**dict.fromkeys(self.__dict__), **without_secrets(self.__dict__)}

    def to_dict(self) -> dict[str, Any]:
        """Return the values as `SFTConfig` does, for whatever logs them, without secrets."""
        values: dict[str, Any] = super().to_dict()
        return {**dict.fromkeys(values), **without_secrets(values)}

    @property
    def safety_terms(self) -> list[tuple[type[SafetyMethod], float | str]]:
        """The methods that `safety_method` names, each with its weight."""
        methods = method_classes(self.safety_method)
        return list(zip(methods, method_weights(self.safety_weight, methods, self.teacher_divergence), strict=True))

    @property
    def template_options(self) -> dict[str, Any]:
        """Return `chat_template_kwargs` as a mapping; empty where there are none."""
        return as_mapping("chat_template_kwargs", self.chat_template_kwargs) or {}

    @property
    def reads_safety_rows(self) -> bool:
        """Whether a method reads the safety rows; a method whose importance is loaded does not."""
        estimates = self.importance_path is None
        return any(method.needs_replay or (method.needs_rows and estimates) for method, _ in self.safety_terms)

    @property
    def answer_tokens(self) -> int:
        """Longest answer of the aligned model to a prompt without one: no longer than what is replayed of it."""
        estimates = any(method.needs_rows for method, _ in self.safety_terms)
        replayed = None if estimates else self.replayed_tokens
        return self.replay_max_new_tokens if replayed is None else min(replayed, self.replay_max_new_tokens)

    @property
    def replayed_tokens(self) -> int | None:
        """Most tokens of an answer that are replayed; None for all of it, and where nothing is replayed."""
        replays = any(method.needs_replay for method, _ in self.safety_terms)
        return self.replay_max_answer_tokens if replays else None

    @property
    def task_format(self) -> TaskFormat | None:
        """Which safety rows wear the format of the task; None for none, and an error where it is not known."""
        return task_format(self)

    @property
    def measures_in_training(self) -> bool:
        """Whether attack success is measured while the model trains, with the built-in held-out prompts."""
        return self.safety_eval_steps is not None or self.safety_max_asr is not None

    @property
    def merged_dir(self) -> str:
        """Folder that `merge_after_training` writes to."""
        return os.path.join(str(self.output_dir), "merged")

    def _check_choices(self) -> None:
        _ = self.safety_terms
        for name, choices in (
            ("teacher", TEACHERS),
            ("teacher_divergence", tuple(DIVERGENCES)),
            ("importance_space", SPACES),
            ("importance_estimator", ESTIMATORS),
            ("penalty_normalization", PENALTY_NORMALIZATIONS),
            ("merge_after_training", MERGES),
        ):
            value = getattr(self, name)
            if value not in choices and value is not self.__dataclass_fields__[name].default:
                raise ValueError(f"`{name}={value!r}` is unknown. Choose from: {', '.join(choices)}, or leave it out.")

    def _check_ranges(self) -> None:
        check_training_ranges(self)
        for name in (
            "replay_max_new_tokens",
            "replay_max_answer_tokens",
            "lisa_safety_steps",
            "lisa_task_steps",
            "safety_eval_max_new_tokens",
            "safety_eval_batch_size",
            "safety_eval_size",
            "safety_eval_steps",
        ):
            check_whole(name, getattr(self, name))
        for name, low, high in (
            ("safety_max_asr", 0.0, 1.0),
            ("merge_weight", 0.0, 1.0),
            ("merge_threshold", 0.0, 1.0),
            ("ema_decay", 0.0, 0.9999999),
            ("importance_decay", 0.0, 1.0),
            ("teacher_temperature", 1e-3, 1e3),
            ("safety_budget", 1e-9, 1e9),
            ("teacher_memory", 0.0, 1e6),
            ("replay_ratio", 1e-3, 100.0),
            ("safety_rows_in_task_format", 0.0, 1.0),
        ):
            if getattr(self, name) is not None or self.__dataclass_fields__[name].default is not None:
                check_between(name, getattr(self, name), low, high)
        check_betas(self.csft_betas)
        if any(method.needs_replay for method, _ in self.safety_terms):
            check_replay_size(self.replay_ratio, self.per_device_train_batch_size)

    def _check_combinations(self) -> None:
        check_merge(self)
        is_auto = any(weight == AUTO for _, weight in self.safety_terms)
        if self.safety_budget is not None and not is_auto:
            raise ValueError(
                f"`safety_budget={self.safety_budget!r}` has no effect. Set `safety_weight: auto`, which keeps a term "
                "at its budget."
            )
        check_teacher(self)
        check_divergences(self, self.safety_terms)
        check_task_format(self)

    def _check_unread_fields(self) -> None:
        read = set(_SHARED)
        for method, _ in self.safety_terms:
            read |= method.reads
        own = {f.name: f for f in fields(self)}
        for name in own.keys() - {f.name for f in fields(SFTConfig)} - read:
            value = getattr(self, name)
            if value != own[name].default:
                readers = sorted(m.name for m in METHODS.values() if name in m.reads)
                raise ValueError(
                    f"`{name}={value!r}` has no effect with `safety_method='{self.safety_method}'`. Remove it, or "
                    f"choose a method that reads it: {', '.join(readers)}."
                )
