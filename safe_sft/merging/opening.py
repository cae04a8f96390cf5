"""Chooses how a merge is carried out: as an adapter where possible, else as a full model, tensor by tensor."""

import logging
from collections.abc import Iterator
from pathlib import Path

from ..models.folders import tokenizer_folder
from .adapter import AdaptedCheckpoint, Adapter, warn_of_other_base
from .alignment import AdapterUpdates
from .base import Merge
from .checkpoint import Checkpoint, TensorSource
from .concatenation import AdapterConcatenation
from .embeddings import transposed_names
from .formulas import Formula, Interpolation, MagMax, SafeLora, SafeMerge
from .matching import Matched
from .models import ModelMerge
from .projecting import AdapterProjection
from .rescaling import AdapterRescaling
from .side import Side, Sides

logger = logging.getLogger(__name__)


def open_merge(sides: Sides, method: str, threshold: float | None = None) -> Merge:
    """Choose the merge that writes least: an adapter where possible, else a full model.

    Args:
        sides: the models and adapters, as many as the method needs.
        method: one of `MERGE_METHODS`.
        threshold: threshold of a method that has one beside its weight.

    Raises:
        FileNotFoundError: when a folder or its safetensors are missing.
        ValueError: when they cannot be merged.
    """
    sides.tuned.with_weights()
    adapter = _open_adapter_merge(sides, method, threshold) if sides.tuned.is_adapter else None
    if adapter is not None:
        return adapter
    given = [side for side in sides.named().values() if side.with_weights() and side.is_adapter]
    if given:
        logger.warning(
            f"`{method}` of '{sides.tuned.label}' and '{sides.aligned.label}' needs full weights, and "
            f"'{given[0].label}' is an adapter: the result is a model, not an adapter."
        )
    return open_model_merge(sides, method, threshold)


def _open_adapter_merge(sides: Sides, method: str, threshold: float | None) -> Merge | None:
    """Return the merge that writes an adapter; None where there is none."""
    aligned, tuned, base, safe = sides.aligned, sides.tuned, sides.base, sides.safe
    if method in ("linear", "task_arithmetic"):
        if aligned.is_adapter:
            return AdapterConcatenation(Adapter(aligned), Adapter(tuned), aligned.base)
        return AdapterRescaling(aligned, Adapter(tuned))
    if base is None or not aligned.with_weights() or aligned.is_adapter:
        return None
    if method == "safe_lora":
        return AdapterProjection(aligned, Adapter(tuned), _source(base, None))
    if method == "safemerge" and safe is not None and threshold is not None and safe.is_adapter:
        adapter = Adapter(tuned)
        updates = AdapterUpdates(adapter, _source(aligned, None), _source(base, None), inclusive=False)
        return AdapterConcatenation(Adapter(safe), adapter, aligned, updates, threshold)
    return None


def open_model_merge(sides: Sides, method: str, threshold: float | None = None) -> ModelMerge:
    """Make a merge of full weights, also where an adapter would do.

    Args:
        sides: the models and adapters, as many as the method needs.
        method: one of `MERGE_METHODS`.
        threshold: threshold of a method that has one beside its weight.

    Raises:
        FileNotFoundError: when a folder or its safetensors are missing.
        ValueError: when they cannot be merged.
    """
    aligned = sides.aligned
    on = None if aligned.is_adapter else aligned
    formula, named = _formula(sides, method, threshold), sides.named()
    tuned = _source(sides.tuned, on)
    others = []
    for role in (*formula.takes[1:], *(role for role in named if role.startswith("tuned_"))):
        side = named[role]
        source = _source(side, None if role in ("aligned", "base") else on)
        others.append(Matched(source, tuned, role, (tokenizer_of(side), tokenizer_of(sides.tuned, aligned))))
    return ModelMerge(tuned, others, formula)


def _formula(sides: Sides, method: str, threshold: float | None) -> Formula:
    if method == "magmax":
        return MagMax()
    if method == "safe_lora":
        return SafeLora(_transposed(sides))
    if method == "safemerge":
        return SafeMerge(_transposed(sides), threshold or 0.0)
    return Interpolation(method)


def _transposed(sides: Sides) -> frozenset[str]:
    tuned, aligned = sides.tuned, sides.aligned
    model = tuned if not tuned.is_adapter else tuned.base if aligned.is_adapter else aligned
    return transposed_names(model.folder)


def _source(side: Side, base: Side | None) -> TensorSource:
    """Open the full weights of a side; an adapter is added to `base`, or to the base that it names."""
    if not side.is_adapter:
        return Checkpoint(side.with_weights(), side.label)
    adapter, base = Adapter(side), base or side.base
    warn_of_other_base(adapter, base.label)
    return AdaptedCheckpoint(Checkpoint(base.with_weights(), base.label), adapter)


def tokenizer_of(*sides: Side) -> Path | None:
    """Return the folder of the tokenizer of the first side that has one; after an adapter comes its base."""

    def candidates() -> Iterator[Path]:
        yield from (side.folder for side in sides)
        yield from (side.base.folder for side in sides if side.is_adapter)

    return tokenizer_folder(candidates())
