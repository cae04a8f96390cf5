"""Estimates the importance of a model's weights from safety rows, or loads it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..data import TokenizedRow
from ..data.tokenization import rows_fingerprint
from ..models.fingerprint import model_fingerprint, tokenizer_fingerprint
from .estimate import Estimation, estimate_importance
from .file import Importance, Provenance
from .partial import PartialSums
from .space import AnchoredSpace


def build_importance(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    space: AnchoredSpace,
    rows: Sequence[TokenizedRow],
    *,
    estimator: str,
    batch_size: int,
    seed: int = 0,
    folder: Path | None = None,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    checkpointing: bool = False,
) -> Importance:
    """Estimate importance, without normalising or saving it.

    Args:
        model: the model, on its device, not wrapped for distribution.
        tokenizer: the model's tokenizer.
        space: the space of `model`'s weights, from `anchor_space`.
        rows: safety rows.
        estimator: `empirical`, `sampled` or `mas`.
        batch_size: rows at a time on each rank.
        seed: seed of the answers that `sampled` draws.
        folder: folder where unfinished sums are kept until `discard_partial`; None keeps none.
        autocast: the precision in which the model runs; the sums are float32 in any.
        checkpointing: whether layers keep their inputs alone, and run again in the backward pass.

    Returns:
        The importance, equal on every rank.
    """
    provenance = provenance_of(model, tokenizer, space, rows, estimator)
    partial = None if folder is None else _partial(folder, provenance, batch_size, seed)
    how = Estimation(estimator, batch_size, tokenizer.pad_token_id or 0, seed, autocast, checkpointing)
    return Importance(estimate_importance(model, space, rows, how, partial), provenance)


def provenance_of(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    space: AnchoredSpace,
    rows: Sequence[TokenizedRow],
    estimator: str,
) -> Provenance:
    """Return what importance is made of: model, tokenizer, space, estimator and rows."""
    return Provenance(
        estimator=estimator,
        space=space.name,
        model=model_fingerprint(model, space.anchors()),
        tokenizer=tokenizer_fingerprint(tokenizer),
        data=rows_fingerprint(rows),
        sequences=len(rows),
        tokens=sum(row.supervised_tokens for row in rows),
    )


def load_importance(
    source: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase, space: AnchoredSpace, *, estimator: str
) -> Importance:
    """Load importance that was made for this model, tokenizer, space and estimator.

    Args:
        source: folder, or repository of the Hub.
        model: the model, with the weights that are its anchor.
        tokenizer: the model's tokenizer.
        space: the space of `model`'s weights, from `anchor_space`.
        estimator: `empirical`, `sampled` or `mas`.

    Raises:
        ValueError: when the importance was made for another model, tokenizer, space or estimator.
    """
    importance = Importance.load(source)
    importance.require(
        source,
        space=space.name,
        estimator=estimator,
        model=model_fingerprint(model, space.anchors()),
        tokenizer=tokenizer_fingerprint(tokenizer),
    )
    return importance


def discard_partial(folder: Path) -> None:
    """Remove this rank's unfinished sums, once the importance is saved."""
    _partial_path(folder).unlink(missing_ok=True)


def _partial(folder: Path, provenance: Provenance, batch_size: int, seed: int) -> PartialSums:
    request = {**asdict(provenance), "batch_size": batch_size, "seed": seed, "ranks": PartialState().num_processes}
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return PartialSums(_partial_path(folder), digest)


def _partial_path(folder: Path) -> Path:
    return folder / f"partial-{PartialState().process_index}.safetensors"
