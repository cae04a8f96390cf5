"""From what the user passes as `safety_dataset` to token rows and their teacher."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.logging import get_logger
from torch import nn
from transformers import PreTrainedTokenizerBase

from .config import SafeSFTConfig
from .data import SafetyRow, TokenizedRow, builtin_prompts, prompt_token_ids, read_safety_rows, tokenize_row
from .evaluation import RefusalPhrases, Verdict
from .importance.fingerprint import model_fingerprint, rows_fingerprint, tokenizer_fingerprint
from .modeling import adapter_is_fresh, aligned_without_adapter, base_model, of_adapter, placed
from .remote import RemoteName
from .replay import (
    CachedTeacher,
    HiddenStateTap,
    OnlineTeacher,
    Teacher,
    answer_prompts,
    build_teacher_cache,
    download_teacher_cache,
)

logger = get_logger(__name__)


@dataclass(frozen=True)
class SafetySet:
    """Safety rows as the user gave them, checked.

    Attributes:
        rows: with an answer, or without one.
        name: of the built-in prompts; None for rows of the user's.
    """

    rows: tuple[SafetyRow, ...]
    name: str | None = None

    @classmethod
    def read(cls, dataset: Iterable[Mapping[str, Any]] | None) -> "SafetySet":
        """Check `dataset`; None means the built-in prompts."""
        if dataset is None:
            return cls(
                tuple(SafetyRow(prompt.prompt, None) for prompt in builtin_prompts("safety")), "built-in prompts"
            )
        return cls(tuple(read_safety_rows(dataset)))

    @property
    def digest(self) -> str:
        """Of the texts, in order."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]

    def tokenize(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, args: SafeSFTConfig
    ) -> list[TokenizedRow]:
        """Token rows, in order; `model` answers the prompts that have no answer.

        Raises:
            ValueError: when no row keeps a supervised token.
        """
        asked = [i for i, row in enumerate(self.rows) if row.completion is None]
        tokenized = {
            i: tokenize_row(tokenizer, row, args.max_length)
            for i, row in enumerate(self.rows)
            if row.completion is not None
        }
        if asked:
            prompts = [prompt_token_ids(tokenizer, self.rows[i].prompt) for i in asked]
            with placed(model, args.device):
                answers = answer_prompts(
                    model,
                    tokenizer,
                    prompts,
                    max_new_tokens=args.replay_max_new_tokens,
                    max_length=args.max_length,
                    batch_size=args.safety_eval_batch_size,
                )
            _warn_of_compliance(tokenizer, prompts, answers)
            tokenized.update(zip(asked, answers, strict=True))
        rows = [tokenized[i] for i in range(len(self.rows)) if tokenized[i].supervised_tokens]
        if not rows:
            raise ValueError(
                f"None of the {len(self.rows)} safety rows keeps a token of its answer within "
                f"`max_length={args.max_length}`. Raise `max_length`, or give shorter prompts."
            )
        if len(rows) < len(self.rows):
            logger.warning(
                f"{len(self.rows) - len(rows)} of {len(self.rows)} safety rows keep no token of their answer within "
                f"`max_length={args.max_length}` and are left out."
            )
        return rows


def _warn_of_compliance(
    tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], answers: list[TokenizedRow]
) -> None:
    """Self-replay keeps what the model does; say so when that is not refusing."""
    judge = RefusalPhrases()
    texts = tokenizer.batch_decode(
        [row.input_ids[len(prompt) :] for prompt, row in zip(prompts, answers, strict=True)],
        skip_special_tokens=True,
    )
    refused = sum(judge("", text) is Verdict.REFUSED for text in texts)
    if refused < len(texts) / 2 and PartialState().is_main_process:
        logger.warning(
            f"The model refuses only {refused} of the {len(texts)} safety prompts that it was to answer itself. "
            "Replay keeps the behaviour of the model it starts from: start from an aligned model, or give the safety "
            "rows a `completion`."
        )


def make_teacher(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    tap: HiddenStateTap,
    rows: Sequence[TokenizedRow],
    args: SafeSFTConfig,
) -> Teacher:
    """The teacher that `args` asks for; by default the one that stores nothing, where it is exact.

    Raises:
        ValueError: when `teacher="online"` would not be the aligned model, or the cache belongs to another.
    """
    switchable = aligned_without_adapter(model)
    if args.teacher == "online" and not switchable:
        raise ValueError(
            "`teacher='online'` runs the model with its adapter switched off, which is the aligned model only for a "
            "fresh LoRA adapter. This model is tuned in full or beside its adapter, or the adapter has been trained "
            "or alters the base weights. Set `teacher: cached`, or leave it out."
        )
    if args.teacher == "online" or (switchable and args.teacher is None and args.teacher_cache is None):
        return OnlineTeacher(tap)
    provenance = teacher_provenance(model, tokenizer, rows, args)
    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:12]
    remote = RemoteName.parse(args.teacher_cache or "")
    if remote is not None:
        return CachedTeacher(download_teacher_cache(remote, provenance))
    # Names that begin with `_` stay behind when `Trainer` pushes the folder.
    folder = args.teacher_cache or os.path.join(str(args.output_dir), f"_teacher-{digest}")
    with placed(model, args.device):
        cache = build_teacher_cache(
            folder, tap, model, rows, provenance, batch_size=args.safety_eval_batch_size, device=args.device
        )
    return CachedTeacher(cache)


def teacher_provenance(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[TokenizedRow], args: SafeSFTConfig
) -> dict[str, Any]:
    """What a teacher's states depend on, as plain values that can be compared and shown."""
    config = base_model(model).config
    quantization = getattr(config, "quantization_config", None)
    adapter = {n: p for n, p in model.named_parameters() if of_adapter(n)}
    return {
        "model": Path(config._name_or_path).name,  # the folder may move; the digests below do not
        "revision": getattr(config, "_commit_hash", None),
        **model_fingerprint(model, {} if adapter_is_fresh(model) else adapter),
        "dtype": str(config.dtype),
        "autocast": "bf16" if args.bf16 else "fp16" if args.fp16 else None,
        "quantization": None if quantization is None else json.loads(json.dumps(quantization.to_dict(), default=str)),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "chat_template": hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16],
        "rows": rows_fingerprint(rows),
    }
