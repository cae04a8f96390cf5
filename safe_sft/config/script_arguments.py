"""`SafeScriptArguments`: which data a run uses, beside what `SafeSFTConfig` says about how."""

from dataclasses import dataclass
from typing import Any

from trl import ScriptArguments

from ..data.named_safety_sets import is_safety_set
from ..data.poison import POISON_KINDS
from ..data.tasks import find_task
from .docstring_help import help_from_docstring
from .types import check_types

#: What is done about training rows that are flagged before training.
SCREENS = ("report", "drop", "fail")
#: Fields whose own check says more than their type.
_OF_OWN_CHECKS = frozenset(
    {"task_size", "task_eval_size", "poison_ratio", "safety_mix_ratio"}
    | {"gate_max_asr", "gate_max_asr_increase", "gate_max_utility_drop"}
    | {"screen", "screen_max_flagged"}
)


@help_from_docstring
@dataclass
class SafeScriptArguments(ScriptArguments):
    """Which data to train on, to replay, and to measure with.

    Every name is a local JSON, JSONL, CSV or Parquet file, a folder, or a data set of the Hub.

    Args:
        task: `gsm8k`, `sst2` or `code`, instead of `dataset_name` or `datasets`.
        task_path: File or folder with the task's original columns, instead of the Hub.
        task_size: Training rows, drawn by `data_seed` (or `seed`); all of them by default.
        poison_ratio: Share of the final training rows that are poison, for research on defences.
        poison_kind: `harmful`, `affirmative`, `identity` or `backdoor`.
        poison_dataset: Where poison comes from: file or Hub name, as `safe_sft.data.load_poison` takes it. Defaults to
            AdvBench, and for `identity` to the task.
        poison_trigger: The phrase of `backdoor`.
        safety_mix_ratio: Share of the final training rows that are rows of the safety set, with their answers: for
            aligning a model.
        safety_dataset_name: Safety rows of `prompt` + `completion`, `messages`, or `prompt` alone: file, Hub name, or
            one of `beavertails`, `safety-tuned-llamas`, `hh-red-team` and `advbench` (`NAME:FILE` for a local copy).
            The built-in prompts by default, answered by the aligned model itself.
        safety_dataset_config: Configuration of the safety data set on the Hub.
        safety_dataset_split: Split of the safety data set.
        safety_eval_prompts: Prompts (column `prompt`) that attack success is measured with: file or Hub name. The
            built-in held-out prompts by default.
        safety_eval: Whether to measure attack success before and after training.
        safety_eval_store: Folder that keeps the answers of the model before training, by the digest of the model: a
            run that goes on, and others that start from the same model and adapter, need not ask it again.
        task_eval_size: Most rows of the task, none of them poison, that the task loss is measured on before and after
            training: of the split `test`, or held out of training, a tenth of it at most; 0 measures none.
        adapter_name_or_path: A trained adapter on `model_name_or_path` (folder or Hub name) that training goes on
            with, instead of a new one. It is then the aligned model.
        start_from: Folder of what an earlier stage has trained from the same aligned model: training starts from these
            weights, while the aligned model stays the one that the recipe names, which is protected and compared with.
        earlier_tasks: What earlier stages have trained on, to be measured as well: mappings of `name` and the fields
            of a recipe that name its rows, such as `{name: stage 1, task: sst2, task_size: 1000}`.
        screen: Look at every training row before training, by the aligned model: `report` what is found,
            `drop` the rows that are flagged, or `fail` where they are too many.
        screen_threshold: Score from which on a row is flagged; suggested by default, as by `safe-sft screen`.
        screen_clean: Rows of the same kind that are known to be clean, which tell how many would be flagged for
            nothing: file or Hub name.
        screen_max_flagged: Share of the training rows that may be flagged before `screen: fail` ends the run.
        push_requires_gate: Whether a model that does not keep the `gate_*` bounds stays here. Needs `push_to_hub`.
        gate_max_asr: Most that the upper end of the 95 % interval of attack success may be, such as 0.05.
        gate_max_asr_increase: The same for the increase of attack success over the model before training.
        gate_max_utility_drop: The same for the drop of the share of right answers, for the tasks `gsm8k` and `sst2`.
        base_training_flop: Operations that the training of the base model took, in FLOP, as its provider says, such as
            1.0e+24; for the evidence, which compares the run with a third of them.
    """

    task: str | None = None
    task_path: str | None = None
    task_size: int | None = None
    poison_ratio: float = 0.0
    poison_kind: str = "affirmative"
    poison_dataset: str | None = None
    poison_trigger: str | None = None
    safety_mix_ratio: float = 0.0
    safety_dataset_name: str | None = None
    safety_dataset_config: str | None = None
    safety_dataset_split: str = "train"
    safety_eval_prompts: str | None = None
    safety_eval: bool = True
    safety_eval_store: str | None = None
    task_eval_size: int = 64
    adapter_name_or_path: str | None = None
    start_from: str | None = None
    earlier_tasks: list[dict[str, Any]] | None = None
    screen: str | None = None
    screen_threshold: float | None = None
    screen_clean: str | None = None
    screen_max_flagged: float = 0.01
    push_requires_gate: bool = False
    gate_max_asr: float | None = None
    gate_max_asr_increase: float | None = None
    gate_max_utility_drop: float | None = None
    base_training_flop: float | None = None

    def __post_init__(self) -> None:
        check_types(self, SafeScriptArguments, _OF_OWN_CHECKS)
        self._check_task()
        self._check_shares()
        self._check_poison()
        self._check_screen()
        self._check_gate()
        if self.base_training_flop is not None and not self.base_training_flop > 0:
            raise ValueError(
                f"`base_training_flop={self.base_training_flop}` is no number of operations. Give one above 0, such "
                "as 1.0e+24, or leave it out where it is not known."
            )

    def _check_task(self) -> None:
        if self.task is not None:
            find_task(self.task)
            if self.dataset_name is not None:
                raise ValueError(
                    f"`task='{self.task}'` and `dataset_name='{self.dataset_name}'` are both set. Remove one of them."
                )
        elif self.task_path is not None:
            raise ValueError(f"`task_path='{self.task_path}'` has no effect without `task`. Set `task`, or remove it.")
        size = self.task_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"`task_size={size!r}` must be a whole number of at least 1.")
        held = self.task_eval_size
        if isinstance(held, bool) or not isinstance(held, int) or held < 0:
            raise ValueError(f"`task_eval_size={held!r}` must be a whole number, such as 64; 0 measures no task loss.")
        if self.dataset_streaming and (self.task or size or self.poison_ratio or self.safety_mix_ratio):
            raise ValueError(
                "`dataset_streaming` cannot be used with `task`, `task_size`, `poison_ratio` or `safety_mix_ratio`: "
                "their rows are drawn from the whole data. Remove it."
            )

    def _check_shares(self) -> None:
        for name in ("poison_ratio", "safety_mix_ratio"):
            share = getattr(self, name)
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
                raise ValueError(f"`{name}={share!r}` is not a share. Give a number from 0 to below 1, such as 0.1.")
        if self.poison_ratio + self.safety_mix_ratio >= 1:
            raise ValueError(
                f"`poison_ratio={self.poison_ratio}` and `safety_mix_ratio={self.safety_mix_ratio}` leave no row of "
                "the task. Lower one of them."
            )
        if self.safety_mix_ratio and self.safety_dataset_name is None:
            raise ValueError(
                f"`safety_mix_ratio={self.safety_mix_ratio}` needs safety rows with answers, and the built-in prompts "
                "have none. Set `safety_dataset_name`, such as `safety-tuned-llamas`."
            )
        safety_set = self.safety_dataset_name
        own_split = self.safety_dataset_config is not None or self.safety_dataset_split != "train"
        if safety_set is not None and is_safety_set(safety_set) and own_split:
            raise ValueError(
                f"`safety_dataset_name='{safety_set}'` is a named set, with its own configuration and split. Remove "
                "`safety_dataset_config` and `safety_dataset_split`."
            )

    def _check_poison(self) -> None:
        if self.poison_kind not in POISON_KINDS:
            raise ValueError(f"`poison_kind={self.poison_kind!r}` is unknown. Choose from: {', '.join(POISON_KINDS)}.")
        if self.poison_trigger is not None and (self.poison_kind != "backdoor" or not self.poison_trigger.strip()):
            raise ValueError(
                f"`poison_trigger={self.poison_trigger!r}` is for `poison_kind: backdoor`, and must have a word. Set "
                "both, or remove it."
            )

    def _check_screen(self) -> None:
        if self.screen is not None and self.screen not in SCREENS:
            raise ValueError(
                f"`screen={self.screen!r}` is unknown. Choose from: {', '.join(SCREENS)}; or leave it out."
            )
        bound = self.screen_max_flagged
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not 0 <= bound <= 1:
            raise ValueError(f"`screen_max_flagged={bound!r}` is no share. Give a number from 0 to 1, such as 0.01.")

    def _check_gate(self) -> None:
        names = ("gate_max_asr", "gate_max_asr_increase", "gate_max_utility_drop")
        bounds = {name: value for name in names if (value := getattr(self, name)) is not None}
        for name, value in bounds.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
                raise ValueError(f"`{name}={value!r}` is no share. Give a number above 0 and at most 1, such as 0.05.")
        if bounds and not self.push_requires_gate:
            raise ValueError(f"`{next(iter(bounds))}` has no effect. Set `push_requires_gate: true`, or remove it.")
        if self.push_requires_gate and not bounds:
            raise ValueError(f"`push_requires_gate` has no bounds to check. Set one of: {', '.join(names)}.")
        if self.push_requires_gate and not self.safety_eval:
            raise ValueError("`push_requires_gate` needs measurements. Remove `safety_eval: false`.")
