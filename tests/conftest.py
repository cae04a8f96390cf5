"""Tiny models built from a config, tiny data, and trainers over them: all on CPU, all offline."""

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
    set_seed,
)

from safe_sft import SafeSFTConfig, SafeSFTTrainer
from safe_sft.cli.main import main
from safe_sft.demo.model import CHAT_TEMPLATE
from safe_sft.methods import METHODS


def pass_over_imports() -> None:
    """Let garbage collections pass over what is there now: each run makes one, and half its time went to modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _short_collections() -> None:
    pass_over_imports()


SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def status_of(arguments: list[str]) -> int:
    """Run `safe-sft …` in this process and return its status, whether it is returned or raised."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, after five special ones."""
    special = [*SPECIAL.values(), "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
    fast.add_special_tokens({"additional_special_tokens": special[3:]})
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(seed: int = 0, dtype: torch.dtype = torch.float32, **overrides) -> LlamaForCausalLM:
    """A two-layer LLaMA with random weights, far enough from 0 that its logits differ."""
    set_seed(seed)
    settings = {
        "vocab_size": 261,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        **overrides,
    }
    return LlamaForCausalLM(LlamaConfig(**settings)).to(dtype)


def task_rows(count: int = 16) -> Dataset:
    """Prompt/completion rows of differing length."""
    words = ["red", "green", "blue", "a long grey"]
    return Dataset.from_list(
        [{"prompt": f"{'please ' * (i % 3)}colour {i}?", "completion": f" {words[i % 4]} {i}"} for i in range(count)]
    )


def safety_rows(count: int = 6) -> list[dict]:
    """Safety rows with answers."""
    return [{"prompt": f"bad {'very ' * (i % 3)}{i}", "completion": f"No, I can not{'!' * i}"} for i in range(count)]


def lora(**overrides) -> LoraConfig:
    """A LoRA on all linear layers of the backbone, without dropout."""
    return LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **overrides}
    )


def nf4(**overrides) -> BitsAndBytesConfig:
    """NF4 with double quantisation, computed in float32."""
    return BitsAndBytesConfig(
        **{
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": torch.float32,
            **overrides,
        }
    )


def make_config(folder, **overrides) -> SafeSFTConfig:
    """Plain SGD in float32, so that updates are gradients."""
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "optim": "sgd",
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "seed": 7,
        **overrides,
    }
    return SafeSFTConfig(**settings)


def make_trainer(
    folder,
    method="der",
    *,
    model=None,
    peft=True,
    train=None,
    evaluation=None,
    safety=None,
    cls=SafeSFTTrainer,
    **config,
):
    """A trainer over the tiny model; `cls=SFTTrainer` gives the plain one with the same settings."""
    extra = {} if cls is not SafeSFTTrainer else {"safety_dataset": safety if safety is not None else safety_rows()}
    if "quantization_config" in config:
        extra["quantization_config"] = config.pop("quantization_config")
    return cls(
        model=model if model is not None else make_model(),
        args=make_config(folder, safety_method=method, **config),
        train_dataset=train if train is not None else task_rows(),
        eval_dataset=evaluation,
        processing_class=make_tokenizer(),
        peft_config=lora() if peft is True else peft or None,
        **extra,
    )


def move_off_the_anchor(trainer) -> None:
    """Move the trainable weights, the same way each time, so that no term is near 0 (and near float32's noise)."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (p for p in trainer.model.parameters() if p.requires_grad):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@contextmanager
def turned_around() -> Iterator[None]:
    """Let the safety gradients of the methods that project point the other way."""
    with ExitStack() as stack:
        for method in (method for method in METHODS.values() if method.projects):
            losses = method.token_losses
            negative = mock.patch.object(method, "token_losses", lambda *args, losses=losses: -losses(*args))
            stack.enter_context(negative)
        yield


def trained_weights(trainer) -> dict[str, torch.Tensor]:
    """The trainable parameters, copied."""
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def logged(trainer, name: str) -> list[float]:
    """The values of `name` in the log, in order."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def assert_same(left: dict, right: dict, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Equal names and values; bit for bit by default."""
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def relative_difference(left: dict, right: dict) -> float:
    """`‖left − right‖ / ‖right‖` over all tensors."""
    assert left.keys() == right.keys()
    flat = [torch.cat([side[name].double().flatten() for name in right]) for side in (left, right)]
    return ((flat[0] - flat[1]).norm() / flat[1].norm()).item()


def updates_of_an_epoch(folder, method: str, **config) -> tuple[list[dict[str, torch.Tensor]], list[float]]:
    """What each optimizer step of an epoch of 40 rows adds to the weights, and its term; at default settings."""
    trainer = make_trainer(folder, method, train=task_rows(40), num_train_epochs=1, max_steps=-1, **config)
    move_off_the_anchor(trainer)
    weights = [trained_weights(trainer)]

    class AfterEachStep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            weights.append(trained_weights(trainer))

    trainer.add_callback(AfterEachStep())
    trainer.train()
    moved = [{name: after[name] - before[name] for name in before} for before, after in pairwise(weights)]
    return moved, logged(trainer, "safety_loss")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()
