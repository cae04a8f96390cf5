"""Writes a recipe for a model, a data set and a GPU: the settings that fit, with reasons as comments."""

import json
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from trl import ModelConfig

from ..config.safe_sft_config import SafeSFTConfig
from ..data.files import load_rows, named_errors, require_file
from ..data.tasks import TASKS
from ..data.values import check_training_rows, require_training_columns
from ..methods.registry import ALIASES, METHODS
from .data import assumed_rows, count_safety_rows
from .gpus import GPUS, OVERHEAD_BYTES, UTILIZATION, find_gpu, memory_of
from .plan import Plan, make_plan
from .report import size

#: Task rows of an optimizer step.
ROWS = 16
#: Factor on an estimate, as a margin for its error.
MARGIN = 1.1
LENGTHS = (1024, 512, 256)
# Rows of the data that are read before a recipe is written, and the column of texts that it trains on.
_FIRST_ROWS, _TEXT = 100, "text"


@dataclass(frozen=True)
class Setting:
    """One candidate for the settings that decide how much memory training takes.

    Attributes:
        quantized: whether the weights are in 4 bits.
        batch: task rows of a micro-step.
        max_length: tokens of a row.
        checkpointing: whether gradient checkpointing is on.
    """

    quantized: bool
    batch: int
    max_length: int
    checkpointing: bool = True

    @property
    def accumulation(self) -> int:
        """Number of micro-steps of an optimizer step."""
        return ROWS // self.batch

    @property
    def optim(self) -> str:
        """Name of the optimizer; a paged one where memory is short."""
        return "paged_adamw_32bit" if self.quantized else "adamw_torch_fused"

    def plan(self, model: str, method: str) -> Plan:
        """Plan a run with this setting."""
        args = SafeSFTConfig(
            "unused",
            safety_method=method,
            use_cpu=True,  # it is planned on any machine
            bf16=True,
            per_device_train_batch_size=self.batch,
            gradient_accumulation_steps=self.accumulation,
            max_length=self.max_length,
            gradient_checkpointing=self.checkpointing,
            optim=self.optim,
        )
        config = ModelConfig(
            model_name_or_path=model,
            dtype="bfloat16",
            load_in_4bit=self.quantized,
            use_bnb_nested_quant=self.quantized,
            use_peft=True,
            lora_target_modules=["all-linear"],
        )
        safety = count_safety_rows(None, None, self.max_length, args.answer_tokens)
        return make_plan(
            args, config, assumed_rows(None, self.max_length, "task rows"), safety, utilization=UTILIZATION
        )


#: With 16-bit and with 4-bit weights, from the most memory to the least.
SETTINGS = (
    [Setting(False, batch, LENGTHS[0]) for batch in (8, 4, 2)],
    [*(Setting(True, batch, LENGTHS[0]) for batch in (8, 4, 2, 1)), *(Setting(True, 1, n) for n in LENGTHS[1:])],
)


def write_recipe(model: str, data: str, gpu: str, method: str, path: str = "recipe.yaml") -> str:
    """Return the text of a recipe.

    Args:
        model: local folder or Hub name of the model.
        data: a task of this package, a local file, or a data set of the Hub.
        gpu: name of a GPU, or its memory, such as `24GB`.
        method: value of `safety_method`.
        path: path of the recipe, for its header.

    Raises:
        FileNotFoundError: when `data` looks like a file and does not exist.
        ValueError: when the model, the method or the GPU is unknown, the model does not fit, or the data are no rows.
    """
    require_file(data)
    if data not in TASKS and Path(data).exists():
        _check_first_rows(data)
    setting, plan = fitting(model, method, _memory(gpu), gpu)
    template = files(__package__).joinpath("templates/recipe.yaml.j2").read_text(encoding="utf-8")
    chosen = {"model": model, "data": data, "method": method}
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=False)
        .from_string(template)
        .render(
            chosen | _as_yaml(chosen) | _what_fits(setting, plan),
            data_field="task" if data in TASKS else "dataset_name",
            methods=[*METHODS, *ALIASES],
            gpu=gpu,
            path=path,
            output_dir=json.dumps(f"outputs/{model.rstrip('/').split('/')[-1].lower()}-{method}"),
        )
    )


def _check_first_rows(data: str) -> None:
    """Check that a local file or folder begins with rows that can be trained on; the rest is checked by training."""
    from datasets import Dataset

    with named_errors(data):
        first = list(load_rows(data, split="train", streaming=True).take(_FIRST_ROWS))
    if not first:
        raise ValueError(f"'{data}' has no rows. Give at least one.")
    require_training_columns(list(first[0]), _TEXT)
    check_training_rows(Dataset.from_list(first), _TEXT, data)


def _as_yaml(chosen: dict[str, str]) -> dict[str, str]:
    return {f"{name}_yaml": json.dumps(value) for name, value in chosen.items()}


def _what_fits(setting: Setting, plan: Plan) -> dict[str, Any]:
    """Return the settings and the texts of the header, by the names that the template uses."""
    return {
        "peak": size(plan.device_bytes),
        "parameters": f"{plan.parameters:,}",
        "trainable": f"{plan.trainable:,}",
        "replays": plan.schedule.replay_rows > 0,
        "quantized": setting.quantized,
        "batch": setting.batch,
        "accumulation": setting.accumulation,
        "max_length": setting.max_length,
        "checkpointing": setting.checkpointing,
        "optim": setting.optim,
    }


def fitting(model: str, method: str, memory: int, gpu: str) -> tuple[Setting, Plan]:
    """Return the first setting that fits, from 16-bit weights and large batches down.

    Raises:
        ValueError: when no setting fits.
    """
    planned = cache(lambda setting: setting.plan(model, method))
    for settings in SETTINGS:
        first = bisect_left(settings, True, key=lambda setting: _fits(planned(setting), memory))
        if first < len(settings):
            whole = replace(settings[first], checkpointing=False)
            chosen = whole if _fits(planned(whole), memory) else settings[first]
            return chosen, planned(chosen)
    least = planned(settings[-1]).device_bytes
    raise ValueError(
        f"`--model {model}` does not fit on `--gpu {gpu}`: even 4-bit weights and one row of {LENGTHS[-1]} tokens "
        f"take {size(int(least * MARGIN) + OVERHEAD_BYTES)}. Choose a larger GPU or a smaller model."
    )


def _fits(plan: Plan, memory: int) -> bool:
    return plan.device_bytes * MARGIN + OVERHEAD_BYTES <= memory


def _memory(gpu: str) -> int:
    memory = memory_of(gpu)
    if gpu[:1].isalpha() and not find_gpu(gpu).has_bf16:
        able = ", ".join(g.name for g in GPUS.values() if g.has_bf16)
        raise ValueError(f"`--gpu {gpu}` has no bf16, which the recipe trains in. Choose one that has: {able}.")
    return memory
