"""Importance that runs share: estimated once for each model, space and set of rows, and read by the others."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..data import TokenizedRow
from ..storage.made_once import made_once
from ..storage.names import IMPORTANCE_FILE
from .build import build_importance, provenance_of
from .file import Importance
from .space import AnchoredSpace


def shared_importance(
    store: str,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    space: AnchoredSpace,
    rows: Sequence[TokenizedRow],
    *,
    estimator: str,
    batch_size: int,
    seed: int = 0,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    checkpointing: bool = False,
) -> Importance:
    """Return the importance that `build_importance` estimates, from the store where it is there.

    It is the one of the file in any case, whose numbers are rounded to bfloat16: who estimates it and who reads it
    train alike.

    Args:
        store: folder that the runs share.
        model, tokenizer, space, rows, estimator, batch_size, seed, autocast, checkpointing: as `build_importance`.
    """
    with autocast():
        ways = [torch.is_autocast_enabled(kind) and str(torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]
    found = asdict(provenance_of(model, tokenizer, space, rows, estimator))
    dtype, drawn = str(next(model.parameters()).dtype), seed if estimator == "sampled" else None
    content = [found, ways, dtype, batch_size, drawn, PartialState().num_processes]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
    folder = Path(store, f"importance-{digest}")
    with made_once(folder):
        if not (folder / IMPORTANCE_FILE).is_file():
            made = build_importance(
                model,
                tokenizer,
                space,
                rows,
                estimator=estimator,
                batch_size=batch_size,
                seed=seed,
                autocast=autocast,
                checkpointing=checkpointing,
            )
            if PartialState().is_main_process:
                made.save(folder)
            PartialState().wait_for_everyone()
        return Importance.load(folder)
