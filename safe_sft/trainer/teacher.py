"""Chooses the teacher of a run, and records what its states depend on."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..data.batch import ReplayBatch
from ..data.rendering import dated_template
from ..data.tokenization import rows_fingerprint
from ..models.adapters import adapter_is_fresh, aligned_without_adapter, of_adapter
from ..models.fingerprint import config_fingerprint, model_fingerprint, tokenizer_fingerprint
from ..models.modes import placed
from ..models.parts import base_model
from ..replay import (
    CachedTeacher,
    HiddenStateTap,
    OnlineTeacher,
    Teacher,
    TeacherCache,
    TeacherMemory,
    build_teacher_cache,
    cached_date,
    download_teacher_cache,
    teacher_kind,
)
from ..storage.hub import RemoteName
from ..storage.made_once import made_once


def make_teacher(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    tap: HiddenStateTap,
    rows: Sequence[TokenizedRow],
    args: SafeSFTConfig,
) -> Teacher:
    """Make the teacher that `args` asks for.

    Raises:
        ValueError: when `teacher="online"` would not be the aligned model, or the cache belongs to another model.
    """
    switchable = aligned_without_adapter(model)
    if args.teacher == "online" and not switchable:
        raise ValueError(
            "`teacher='online'` runs the model with its adapter switched off, which is the aligned model only for a "
            "fresh LoRA adapter. This model is tuned in full or beside its adapter, or the adapter has been trained "
            "or alters the base weights. Set `teacher: cached`, or leave it out."
        )
    if teacher_kind(args.teacher, args.teacher_cache, switchable=switchable) == "online":
        limit = int(args.teacher_memory * 2**30)
        return OnlineTeacher(tap, TeacherMemory(rows, limit) if limit else None)
    provenance = teacher_provenance(model, tokenizer, rows, args)
    remote = RemoteName.parse(args.teacher_cache or "")
    if remote is not None:
        cache = download_teacher_cache(remote, provenance)
        cache.require_fit(rows)
        return CachedTeacher(cache)
    states = partial(tap.forward_rows, model)
    return CachedTeacher(cached_before_training("teacher", states, model, rows, provenance, args, args.teacher_cache))


def cached_before_training(
    name: str,
    states: Callable[[ReplayBatch], Tensor],
    model: nn.Module,
    rows: Sequence[TokenizedRow],
    provenance: Mapping[str, Any],
    args: SafeSFTConfig,
    folder: str | None = None,
) -> TeacherCache:
    """Compute before training what is kept of every row, or find it where it was computed.

    Args:
        name: what is kept, for the name of the folder.
        states: returns what is kept of the targets of a batch.
        model: the aligned model.
        rows: the rows.
        provenance: what identifies this model and these rows, as plain JSON values.
        args: the run's configuration.
        folder: folder of the cache; by default one in `preparation_store`, or else in `output_dir`.

    Raises:
        ValueError: when the folder belongs to another model or other rows.
    """
    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:12]
    path = folder or _cache_folder(args, f"{name}-{digest}")
    with nullcontext() if folder else _held_if_shared(args, path), placed(model, args.device):
        cache = build_teacher_cache(
            path, states, model, rows, provenance, batch_size=args.safety_eval_batch_size, device=args.device
        )
    cache.require_fit(rows)
    return cache


def _cache_folder(args: SafeSFTConfig, name: str) -> str:
    if args.preparation_store is not None:
        return os.path.join(args.preparation_store, name)
    return os.path.join(str(args.output_dir), f"_{name}")  # which stays behind when `Trainer` pushes the folder


def _held_if_shared(args: SafeSFTConfig, folder: str) -> AbstractContextManager[None]:
    """Hold a folder of `_cache_folder` while it is made, where other runs may make it, too."""
    return nullcontext() if args.preparation_store is None else made_once(Path(folder))


def rows_date(processing_class: Any, args: SafeSFTConfig) -> tuple[date, str] | None:
    """Return the date that the safety rows are rendered with, and the chat template that writes it; None for no date.

    It is that of the teacher cache, if there is one, so that a cache outlives the day on which it was made.

    Args:
        processing_class: the model's tokenizer or processor.
        args: the run's configuration.
    """
    template = dated_template(processing_class, date.today(), args.template_options)
    if template is None:
        return None
    kept = cached_date(args.teacher_cache) if args.teacher_cache else None
    day = date.fromisoformat(kept) if kept else date.today()
    return day, str(dated_template(processing_class, day, args.template_options))


def teacher_provenance(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[TokenizedRow], args: SafeSFTConfig
) -> dict[str, Any]:
    """Return what a teacher's states depend on, as plain values that can be compared and shown."""
    config = base_model(model).config
    quantization = getattr(config, "quantization_config", None)
    adapter = {n: p for n, p in model.named_parameters() if of_adapter(n)}
    dated = rows_date(tokenizer, args)
    return {
        **({"date": dated[0].isoformat()} if dated else {}),
        "model": Path(config._name_or_path).name,  # the folder may move; the digests below do not
        "revision": getattr(config, "_commit_hash", None),
        **model_fingerprint(model, {} if adapter_is_fresh(model) else adapter),
        "config": config_fingerprint(model),
        "dtype": str(config.dtype),
        "autocast": "bf16" if args.bf16 else "fp16" if args.fp16 else None,
        "quantization": None if quantization is None else json.loads(json.dumps(quantization.to_dict(), default=str)),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "chat_template": hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16],
        "rows": rows_fingerprint(rows),
    }
