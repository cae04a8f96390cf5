"""A model in memory whose merge weight can be changed, for a sweep over weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

import torch
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from ..models.loading import load_adapter, load_base, load_tokenizer
from .base import Merge
from .merge import output_dtype
from .methods import check_sides, merge_method, own_number
from .opening import open_merge, open_model_merge, tokenizer_of
from .rescaling import AdapterMerge
from .side import Side, Sides, tuned_names
from .weights import MergeWeights


class LoadedMerge(ABC):
    """A loaded model whose merge weight can be set; both sides stay memory-mapped.

    Attributes:
        model: the merged model, on the device of this process.
        tokenizer: the model's tokenizer.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase

    @abstractmethod
    def set_weight(self, weight: float) -> None:
        """Give the model the merged tensors of `weight`."""


@final
class LoadedAdapter(LoadedMerge):
    """The base model with an adapter whose tensors are overwritten.

    Args:
        plan: the merge.
        aligned: the base model.
        tuned: the adapter of that model.
        dtype: dtype of the merged adapter; None keeps its own.
    """

    def __init__(self, plan: AdapterMerge, aligned: Side, tuned: Side, dtype: torch.dtype | None):
        base = load_base(str(aligned.with_weights()), device_map={"": PartialState().device})
        self.model = load_adapter(base, str(tuned.with_weights())).eval()
        self.tokenizer = _tokenizer(aligned, tuned)
        self._plan, self._dtype = plan, dtype

    def set_weight(self, weight: float) -> None:
        """Put the adapter, merged by `weight`, into the model."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.model, dict(self._plan.tensors(weight, self._dtype)))


@final
class LoadedModel(LoadedMerge):
    """A full model whose tensors are overwritten one by one.

    Args:
        plan: the merge.
        aligned: the aligned side.
        tuned: the tuned side.
        dtype: dtype of the model; None takes that of the tuned side.

    Raises:
        ValueError: when the model holds its tensors under other names than its checkpoint.
    """

    def __init__(self, plan: Merge, aligned: Side, tuned: Side, dtype: torch.dtype | None):
        self._plan, self._dtype = plan, dtype
        # Loaded from a merged folder, so that its configuration, dtype and ties are those that `merge` writes.
        with TemporaryDirectory() as folder:
            plan.write(Path(folder), MergeWeights(1.0), dtype, None)
            self.model = load_base(folder, device_map={"": PartialState().device}).eval()
        self.tokenizer = _tokenizer(aligned, tuned)
        self._state = self.model.state_dict()
        unknown = [entry.name for entry in plan.entries(dtype) if entry.name not in self._state]
        if unknown:
            raise ValueError(
                f"{type(self.model).__name__} holds '{unknown[0]}' of its checkpoint under another name, so one "
                "loaded model cannot take several merges. Merge each weight into a folder of its own, and evaluate "
                "those."
            )

    @torch.no_grad()
    def set_weight(self, weight: float) -> None:
        """Overwrite the model's tensors with the merge of `weight`."""
        for name, tensor in self._plan.tensors(weight, self._dtype):
            self._state[name].copy_(tensor)


def load_merge(
    aligned: str | Path,
    tuned: str | Path | Sequence[str | Path],
    method: str,
    dtype: str | None = None,
    *,
    base: str | Path | None = None,
    safe: str | Path | None = None,
    threshold: float | str | None = None,
) -> LoadedMerge:
    """Load what `merge` would write, so that its weight can be changed (of `safe_lora`, its threshold).

    Args:
        aligned: folder or Hub name of the aligned model or adapter.
        tuned: folder or Hub name of the tuned model or adapter; several for `magmax`.
        method: one of `MERGE_METHODS`.
        dtype: name of the dtype, as `merge` takes it.
        base: folder or Hub name of the model before alignment, where the method needs it.
        safe: folder or Hub name of what was tuned for safety alone, where the method needs it.
        threshold: threshold of `safemerge`, as `merge` takes it.

    Raises:
        FileNotFoundError: when a folder or its safetensors are missing.
        ValueError: when the models cannot be merged.
    """
    check_sides(method, {"base": base, "safe": safe}, len(tuned_names(tuned)))
    swept = merge_method(method).number
    if swept == "threshold" and threshold is not None:
        raise ValueError(f"`threshold={threshold!r}` is what `set_weight` sets with `{method}`. Leave it out here.")
    _, second = own_number(method, None if swept == "threshold" else 1.0, threshold)
    sides, wanted = Sides.of(aligned, tuned, base, safe), output_dtype(dtype)
    plan = open_merge(sides, method, second)
    if isinstance(plan, AdapterMerge):
        return LoadedAdapter(plan, sides.aligned, sides.tuned, wanted)
    # The ranks of two adapters' merge are those of neither: evaluate its full weights.
    return LoadedModel(open_model_merge(sides, method, second), sides.aligned, sides.tuned, wanted)


def _tokenizer(aligned: Side, tuned: Side) -> PreTrainedTokenizerBase:
    folder = tokenizer_of(tuned, aligned)
    if folder is None:
        raise ValueError(
            f"Neither '{tuned.label}' nor '{aligned.label}' has a tokenizer. Save the tokenizer beside the model."
        )
    return load_tokenizer(folder)
