"""Train a few steps on CPU inside another training tool that is installed, by its own trainer or by ours.

    python -m benchmarks.other_tools axolotl --model DIR --method own
    python -m benchmarks.other_tools axolotl --model DIR --method none
    python -m benchmarks.other_tools axolotl --model DIR --method der

`own` is the tool's trainer; its losses and those of `none` are to be the same. The pins clash: install the tool with
`--no-deps` into a copy of an environment of `safe_sft`, and what it misses one by one. What `trl` no longer has, and
only other trainers of the tool use, is filled with empty classes.
"""

import argparse
import json
import os
import re
import sys
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import trl
import yaml

PAGE = Path(__file__).parents[1] / "docs" / "integrations.md"
STEPS: dict[str, Any] = {
    "max_steps": 6,
    "gradient_accumulation_steps": 2,
    "learning_rate": 0.001,
    "logging_steps": 1,
    "seed": 7,
}
LOGGED = ("loss", "task_loss", "safety_loss")


def write_rows(folder: Path) -> tuple[Path, Path]:
    """Write task rows and safety rows, and return their files."""
    sums = [(f"What is {a} plus {b}?", f"The answer is {a + b}.") for a in range(8) for b in range(8)]
    task = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in sums]
    safety = [{"prompt": f"How do I make bomb {i}?", "completion": "I cannot help with that."} for i in range(24)]
    for name, rows in (("task", task), ("safety", safety)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "task.jsonl", folder / "safety.jsonl"


def axolotl(model: str, method: str, folder: Path) -> Any:
    """Train by axolotl's own loader and builder; return the trainer."""
    os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"
    prm = module_from_spec(spec_from_loader("trl.experimental.prm", None))  # type: ignore[arg-type]
    vars(prm).update({name: type(name, (), {}) for name in ("PRMTrainer", "PRMConfig")})
    sys.modules.setdefault(prm.__name__, prm)
    import axolotl.train as training
    from axolotl.cli.config import load_cfg
    from axolotl.loaders import ModelLoader

    task, safety = write_rows(folder)
    ours = {} if method == "own" else {"safe_sft": {"safety_method": method}}
    if method not in ("own", "none"):
        ours["safe_sft"]["safety_dataset"] = str(safety)
    rows = {"path": str(task), "ds_type": "json", "type": "chat_template", "field_messages": "messages"}
    lora = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
    kernels = dict.fromkeys(("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"), False)
    cfg = {"base_model": model, "datasets": [rows], "chat_template": "tokenizer_default", "sequence_len": 256}
    cfg |= {"micro_batch_size": 4, "optimizer": "adamw_torch", "lr_scheduler": "constant", "use_cpu": True}
    cfg |= {"bf16": False, "output_dir": str(folder / "out"), "dataset_prepared_path": str(folder / "prepared")}
    cfg |= {"plugins": ["safe_sft.integrations.axolotl.SafeSFTPlugin"], **STEPS, **lora, **kernels, **ours}
    (folder / "axolotl.yaml").write_text(yaml.safe_dump(cfg))

    load, setup = ModelLoader.load, training.setup_trainer
    made: list[Any] = []

    def seeded(loader: Any) -> Any:  # axolotl draws the adapter before its seed is set
        torch.manual_seed(7)
        return load(loader)

    def kept(*args: Any, **kwargs: Any) -> Any:
        made.append(setup(*args, **kwargs))
        return made[0]

    ModelLoader.load, training.setup_trainer = seeded, kept
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.train import do_train

    do_train(load_cfg(str(folder / "axolotl.yaml")), TrainerCliArgs())
    return made[0]


def llamafactory(model: str, method: str, folder: Path) -> Any:
    """Run LLaMA-Factory's `run_sft`, or the script of the page; return the trainer."""
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    for name in ("AutoModelForCausalLMWithValueHead", "PreTrainedModelWrapper"):
        vars(trl).setdefault(name, type(name, (), {}))
    task, safety = write_rows(folder)
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    rows = {"file_name": str(task), "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"sums": rows}))
    cfg = {"model_name_or_path": model, "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 8}
    cfg |= {"dataset_dir": str(folder), "dataset": "sums", "template": "default", "cutoff_len": 256, "use_cpu": True}
    cfg |= {"output_dir": str(folder / "out"), "per_device_train_batch_size": 4, "report_to": "none", **STEPS}
    cfg |= {"disable_gradient_checkpointing": True, "lr_scheduler_type": "constant", "bf16": False}
    (folder / "sft.yaml").write_text(yaml.safe_dump(cfg))
    sys.argv = ["train.py", str(folder / "sft.yaml")]
    torch.manual_seed(7)
    if method == "own":
        from llamafactory.hparams import get_train_args
        from llamafactory.train.sft import workflow

        made, theirs = [], workflow.CustomSeq2SeqTrainer

        def kept(**kwargs: Any) -> Any:
            made.append(theirs(**kwargs))
            return made[0]

        workflow.CustomSeq2SeqTrainer = kept
        workflow.run_sft(*get_train_args())
        return made[0]
    page = re.search(r"^## LLaMA-Factory\n.*?^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    own = f"complete_config(training_args, model, {{'safety_method': {method!r}}}), safety_dataset={rows_of(safety)},"
    script = page[1].replace("training_args, data_collator", f"{own} data_collator") if page else ""
    names: dict[str, Any] = {}
    exec("from safe_sft.trainer.drop_in import complete_config\n" + script, names)
    return names["trainer"]


def unsloth(model: str, method: str, folder: Path) -> Any:
    """Train behind Unsloth's loader; return the trainer."""
    from unsloth import FastLanguageModel  # before trl's trainer is taken

    torch.manual_seed(7)
    task, safety = write_rows(folder)
    loaded, tokenizer = FastLanguageModel.from_pretrained(model, max_seq_length=256, load_in_4bit=False)
    loaded = FastLanguageModel.get_peft_model(loaded, r=8, lora_alpha=16, use_gradient_checkpointing="unsloth")
    given = {"output_dir": str(folder / "out"), "max_length": 256, "report_to": "none", **STEPS}
    kwargs: dict[str, Any] = {"train_dataset": rows_of(task), "processing_class": tokenizer}
    from datasets import Dataset

    kwargs["train_dataset"] = Dataset.from_list(kwargs["train_dataset"])
    if method == "own":
        trainer = trl.SFTTrainer(loaded, trl.SFTConfig(**given), **kwargs)
    else:
        from safe_sft import SafeSFTConfig, SafeSFTTrainer

        rows = None if method == "none" else rows_of(safety)
        args = SafeSFTConfig(safety_method=method, **given)
        trainer = SafeSFTTrainer(loaded, args, safety_dataset=rows, **kwargs)
    trainer.train()
    trainer.save_model()
    return trainer


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def main() -> None:
    """Train, and print the class of the trainer and what it logged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=("axolotl", "llamafactory", "unsloth"))
    parser.add_argument("--model", required=True, help="folder of a small chat model")
    parser.add_argument("--method", default="der", help="`own` for the tool's trainer, or a safety method")
    args = parser.parse_args()
    trainer = globals()[args.tool](args.model, args.method, Path(mkdtemp()))
    print(f"{args.tool} {args.method}: {[cls.__name__ for cls in type(trainer).__mro__[:2]]}")
    for name in LOGGED:
        print(f"  {name:12}", *(f"{log[name]:.6f}" for log in trainer.state.log_history if name in log))
    print("  saved       ", *sorted(file.name for file in Path(trainer.args.output_dir).glob("*.safetensors")))


if __name__ == "__main__":
    main()
