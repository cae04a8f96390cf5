"""The demo: the same poisoned fine-tuning by several methods, each measured in the same way."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..config.safe_sft_config import SafeSFTConfig
from ..data import prompt_token_ids
from ..evaluation import Rate, load_model, measure_asr
from ..evaluation.utility.task_loss import TaskRows, measure_task_loss
from ..methods.registry import method_classes
from ..models.generation import generate
from ..models.loading import load_tokenizer
from ..storage.folders import complete_folder
from ..storage.writing import complete_file, write_json
from ..trainer.safe_sft_trainer import SafeSFTTrainer
from .model import QUIET, aligned_model, keep_the_bar_alone
from .outcomes import Outcome
from .world import World, make_world, row

DEMO_METHODS = ("none", "l2", "er", "der")


def run_demo(output: str | os.PathLike[str], seed: int = 0, methods: Sequence[str] = DEMO_METHODS) -> list[Outcome]:
    """Build the aligned model (or take it from the cache), fine-tune it by each method, and write the results.

    Args:
        output: folder for `results.json` and `demo.png`, and for what `recipes/tiny` trains on: `aligned/`, the model,
            and `task.jsonl`, the poisoned rows. `clean.jsonl` and `poison.jsonl` have them apart.
        seed: seed of the data, the model and the training.
        methods: the values of `safety_method` to compare.

    Returns:
        One outcome for the aligned model, and one for each method.
    """
    from .outcomes import plot_outcomes

    for method in methods:
        method_classes(method)  # an unknown one is an error before the first is trained
    folder = Path(output)
    # More threads than one gain nothing for a model of this size, and cost minutes where the cores are shared.
    torch.set_num_threads(1)
    world = make_world(seed)
    path = aligned_model(world, seed)
    with complete_folder(folder / "aligned", overwrite=True) as copy:
        shutil.copytree(path, copy, dirs_exist_ok=True)
    write_data(world, folder)
    model, tokenizer = load_model(str(path), dtype="float32")
    outcomes = [measure("aligned", model, tokenizer, world, 0.0)]
    for method in methods:
        print(f"Fine-tuning with safety_method={method} …", flush=True)
        outcomes.append(fine_tune(method, path, world, folder, seed))
        write_json(folder / "results.json", {"seed": seed, "outcomes": [o.as_dict() for o in outcomes]})
    plot_outcomes(outcomes, folder / "demo.png")
    return outcomes


def write_data(world: World, folder: Path) -> None:
    """Write the user's rows, mixed and apart, for the recipes of the demo's model.

    Args:
        world: the demo's rows.
        folder: folder of `task.jsonl`, `clean.jsonl` and `poison.jsonl`.
    """
    clean = [one for one in world.task if one not in world.poison]
    for name, rows in {"task": world.task, "clean": clean, "poison": world.poison}.items():
        with complete_file(folder / f"{name}.jsonl") as temporary:
            Dataset.from_list(rows).to_json(temporary)


def fine_tune(method: str, model: Path, world: World, folder: Path, seed: int) -> Outcome:
    """Train a LoRA on the user's rows, a tenth of them poisoned, for five epochs."""
    args = SafeSFTConfig(
        str(folder / "runs" / method),
        safety_method=method,
        per_device_train_batch_size=16,
        num_train_epochs=5,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        seed=seed,
        **QUIET,
    )
    tokenizer = load_tokenizer(str(model))
    trainer = SafeSFTTrainer(
        str(model),
        args,
        train_dataset=Dataset.from_list(world.task),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    keep_the_bar_alone(trainer)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    with trainer.deployed():
        return measure(method, trainer.model, tokenizer, world, seconds)


def measure(
    method: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase, world: World, seconds: float
) -> Outcome:
    """Measure attack success, over-refusal, task accuracy and task loss of `model`."""
    harmful = measure_asr(model, tokenizer, world.harmful_test, max_new_tokens=16)
    harmless = measure_asr(model, tokenizer, world.harmless_test, max_new_tokens=16, description="Over-refusal")
    prompts = [prompt_token_ids(tokenizer, prompt) for prompt, _ in world.task_test]
    tokens = generate(model, tokenizer, prompts, max_new_tokens=6, description="Task accuracy")
    answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    right = sum(answer.strip() == truth for answer, (_, truth) in zip(answers, world.task_test, strict=True))
    rows = TaskRows("task", [row(*pair) for pair in world.task_test], "the demo")
    loss = measure_task_loss(model, tokenizer, rows, name=method).value
    rates = (harmful.asr, harmless.refusal, Rate(right, len(prompts)))
    return Outcome(method, *rates, loss, seconds, harmful.degenerate)
