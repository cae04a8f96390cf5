"""The demo's aligned chat model: a LLaMA of a million parameters, trained from scratch once and then cached."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, ProgressCallback, Trainer, set_seed
from trl import SFTConfig, SFTTrainer

from ..storage.folders import complete_folder
from . import world as world_module
from .world import World

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{% else %}<|user|>{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
VOCABULARY = 1536


def aligned_model(world: World, seed: int) -> Path:
    """Return the folder of the aligned model; it is trained if it is not cached (about a minute on two cores)."""
    digest = hashlib.sha256()
    for source in (__file__, world_module.__file__):
        digest.update(Path(source).read_bytes())
    digest.update(repr((world.alignment, seed)).encode())
    folder = _cache() / f"aligned-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    with suppress(FileExistsError), complete_folder(folder, overwrite=False) as finished:  # unless another was faster
        _train(world, seed, finished)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "safe_sft"


def _train(world: World, seed: int, folder: Path) -> None:
    tokenizer = make_tokenizer(
        [m["content"] for row in world.alignment + world.task for m in row["prompt"] + row["completion"]]
    )
    set_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=160,
            intermediate_size=448,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
        )
    )
    args = SFTConfig(
        str(folder),
        per_device_train_batch_size=64,
        num_train_epochs=5,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        completion_only_loss=True,
        train_sampling_strategy="group_by_length",
        seed=seed,
        **QUIET,
    )
    trainer = SFTTrainer(model, args, train_dataset=Dataset.from_list(world.alignment), processing_class=tokenizer)
    keep_the_bar_alone(trainer)
    print("Training the aligned model, once …", flush=True)
    trainer.train()
    trainer.save_model()


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `texts`, and give it a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=_SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(  # tokens of a vocabulary  # nosec B106
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=CHAT_TEMPLATE
    )
    fast.add_special_tokens({"additional_special_tokens": _SPECIAL[3:]})
    return fast


class _BarAlone(ProgressCallback):
    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Print no log line."""


def keep_the_bar_alone(trainer: Trainer) -> None:
    """Let the trainer show its progress bar without log lines in between."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_BarAlone)


#: What every run of the demo shares: CPU, float32, no reports.
QUIET: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "logging_strategy": "no",
    "dataloader_pin_memory": False,
}
