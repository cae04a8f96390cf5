"""Stand-ins of axolotl, LLaMA-Factory and Unsloth: as much of their interfaces as the ways in call, called alike.

Written after axolotl 0.19.0 (`integrations/base.py`, `integrations/config.py`, `core/builders/causal.py`,
`utils/collators/batching.py`), LLaMA-Factory 0.9.5 (`train/sft/workflow.py`) and Unsloth 2026.10.9 (`_cpu_init.py`).
"""

import importlib
import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from datasets import Dataset
from peft import get_peft_model
from pydantic import BaseModel
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainingArguments, Trainer, TrainingArguments

from safe_sft.data.safety_rows import SafetyRow
from safe_sft.data.tokenization import tokenize_row
from tests.conftest import lora, make_model, make_tokenizer, task_rows

#: Training arguments of both tools that start from `TrainingArguments`.
ARGUMENTS: dict[str, Any] = {
    "use_cpu": True,
    "learning_rate": 0.01,
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "seed": 7,
}


def tokenised_rows(tokenizer: Any) -> Dataset:
    """Rows as both tools hand them over: token ids, labels and mask."""
    rows = [tokenize_row(tokenizer, SafetyRow(row["prompt"], row["completion"])) for row in task_rows()]
    columns = [
        {"input_ids": row.input_ids, "labels": row.labels, "attention_mask": [1] * len(row.labels)} for row in rows
    ]
    return Dataset.from_list(columns)


def modules(patch: Any, **contents: dict[str, Any]) -> None:
    """Put modules into `sys.modules`, with the packages around them; `__` in a name stands for a dot."""
    for key, attributes in contents.items():
        parts = key.split("__")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            module = ModuleType(name)
            module.__path__ = []  # a package
            if end == len(parts):
                vars(module).update(attributes)
            patch.setitem(__import__("sys").modules, name, module)


class BasePlugin:
    """axolotl's, whose hooks return nothing."""

    def __init__(self) -> None:
        """Take no arguments, as axolotl gives none."""

    def get_input_args(self) -> str | None:
        """Where the class of further arguments is."""

    def get_trainer_cls(self, cfg: Any) -> type | None:
        """The trainer."""


class DictDefault(dict):
    """axolotl's configuration: what is missing is None."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


@dataclass
class AxolotlTrainingArguments(TrainingArguments):
    """axolotl's arguments have fields of its own, which its callbacks read."""

    sample_packing: bool = False
    max_seq_length: int = 2048
    activation_offloading: bool | str | None = None
    gradient_checkpointing: bool | str | None = None


class AxolotlCollator(DataCollatorForSeq2Seq):
    """axolotl's pads, and makes no mask for rows that have none."""

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> Any:
        """Pad the rows."""
        has_mask = "attention_mask" in features[0]
        batch = super().__call__(features, return_tensors)
        if not has_mask:
            del batch["attention_mask"]
        return batch


def plugin(patch: Any, name: str) -> BasePlugin:
    """Load a plugin by its name, as axolotl's `load_plugin` does."""
    modules(patch, axolotl__integrations__base={"BasePlugin": BasePlugin})
    patch.delitem(__import__("sys").modules, "safe_sft.integrations.axolotl", raising=False)
    module, attribute = name.rsplit(".", 1)
    return getattr(importlib.import_module(module), attribute)()


class AxolotlInputConfigBase(BaseModel):
    """axolotl's own class of the configuration."""


def merged_input(plugin: BasePlugin) -> type[BaseModel]:
    """Make axolotl's class of the configuration with the plugin's arguments, as `merge_input_args` does."""
    module, attribute = str(plugin.get_input_args()).rsplit(".", 1)
    return type(
        "AxolotlInputConfig", (AxolotlInputConfigBase, getattr(importlib.import_module(module), attribute)), {}
    )


def built(plugin: BasePlugin, cfg: DictDefault, folder: Any) -> Any:
    """Build the trainer, as `HFCausalTrainerBuilder.build` does."""
    trainer_cls = plugin.get_trainer_cls(cfg)
    assert "processing_class" in inspect.signature(trainer_cls).parameters or issubclass(trainer_cls, Trainer)
    tokenizer, model = make_tokenizer(), get_peft_model(make_model(), lora())
    collator = AxolotlCollator(tokenizer, padding=True, pad_to_multiple_of=64)
    return trainer_cls(
        model=model,
        train_dataset=tokenised_rows(tokenizer),
        eval_dataset=None,
        args=AxolotlTrainingArguments(str(folder), max_seq_length=cfg.sequence_len, **ARGUMENTS),
        data_collator=collator,
        callbacks=[],
        eval_data_collator=collator,
        bench_data_collator=collator,
        processing_class=tokenizer,
        dataset_tags=["task.jsonl"],
    )


def llama_factory(patch: Any, folder: Any) -> None:
    """Put LLaMA-Factory's functions where a script imports them from."""
    tokenizer = make_tokenizer()

    class SFTDataCollatorWith4DAttentionMask(DataCollatorForSeq2Seq):
        def __init__(self, template: Any, tokenizer: Any, processor: Any, **options: Any):
            super().__init__(tokenizer, **options)

        def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> Any:
            for feature in features:
                feature.pop("images", None)
            return super().__call__(features, return_tensors)

    def get_dataset(template: Any, *_: Any, stage: str, tokenizer: Any, processor: Any) -> dict[str, Any]:
        assert stage == "sft"
        rows = tokenised_rows(tokenizer)
        return {"train_dataset": rows.add_column("images", [None] * len(rows))}  # of rows without images, too

    def load_model(tokenizer: Any, model_args: Any, finetuning_args: Any, is_trainable: bool = False) -> Any:
        assert is_trainable
        return get_peft_model(make_model(), lora())

    arguments = Seq2SeqTrainingArguments(str(folder), **ARGUMENTS)
    modules(
        patch,
        llamafactory__data={
            "SFTDataCollatorWith4DAttentionMask": SFTDataCollatorWith4DAttentionMask,
            "get_dataset": get_dataset,
            "get_template_and_fix_tokenizer": lambda tokenizer, data_args: "template",
        },
        llamafactory__hparams={"get_train_args": lambda: (None, None, arguments, None, None)},
        llamafactory__model={
            "load_model": load_model,
            "load_tokenizer": lambda model_args: {"tokenizer": tokenizer, "processor": None},
        },
    )


def unsloth(patch: Any) -> None:
    """Put Unsloth's loader where a script imports it from."""

    class FastLanguageModel:
        @staticmethod
        def from_pretrained(name: str, *, max_seq_length: int, load_in_4bit: bool) -> tuple[Any, Any]:
            return make_model(), make_tokenizer()

        @staticmethod
        def get_peft_model(model: Any, *, r: int, lora_alpha: int, use_gradient_checkpointing: str) -> Any:
            return get_peft_model(model, lora(r=r, lora_alpha=lora_alpha))

    modules(patch, unsloth={"FastLanguageModel": FastLanguageModel})
