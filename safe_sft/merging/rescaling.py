"""The linear merge of a LoRA adapter with its own base: the adapter, with `B` multiplied by the merge weight.

    (1 − t)·W + t·(W + s·B·A)  =  W + s·(t·B)·A

`B` is scaled rather than `lora_alpha`, because it takes a weight of its own in each layer, and because every loader
applies it, whatever it makes of rsLoRA or of an `alpha` that is not a whole number.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..models.folders import ADAPTER, ADAPTER_CONFIG
from ..storage.writing import write_json
from .adapter import Adapter, is_b, tensor_name, warn_of_other_base
from .base import Merge
from .checkpoint import Checkpoint
from .functions import merged
from .loadable import check_adapter_on
from .side import Side
from .writer import Entry


class AdapterMerge(Merge):
    """A merge whose result is the tuned adapter with other numbers, and the same shapes.

    Args:
        aligned: the base; its weights are read only where they are needed.
        adapter: an adapter of that base.

    Raises:
        ValueError: when a tensor that the adapter replaces (`modules_to_save`) is none of the base.
    """

    stem, library = ADAPTER, "peft"

    def __init__(self, aligned: Side, adapter: Adapter):
        self._aligned, self._adapter = aligned, adapter
        warn_of_other_base(adapter, aligned.label)
        for name, key in adapter.full.items():
            base = self._base.shape(name) if name in self._base.names else None
            if base != adapter.shape(key):
                raise ValueError(
                    f"The adapter '{adapter.label}' replaces '{name}' with a tensor of shape {adapter.shape(key)}, "
                    f"which in '{aligned.label}' has shape {base}. Merge the adapter into its base with PEFT's "
                    "`merge_and_unload()`, and pass full models."
                )

    @cached_property
    def _base(self) -> Checkpoint:
        return Checkpoint(self._aligned.with_weights(), self._aligned.label)

    def entries(self, dtype: torch.dtype | None) -> dict[Entry, str]:
        """Return the tensors of the adapter."""
        a = self._adapter
        return {Entry(key, a.shape(key), dtype or a.dtype(key)): tensor_name(key) for key in a.keys}

    def write_configuration(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Copy the adapter's own configuration."""
        name = self._adapter.config.get("base_model_name_or_path") or self._aligned.label
        write_json(folder / ADAPTER_CONFIG, {**self._adapter.config, "base_model_name_or_path": name})

    def check_loads(self, folder: Path) -> None:
        """Check that the adapter loads on the aligned model."""
        check_adapter_on(self._aligned, folder, self._adapter.label)


@final
class AdapterRescaling(AdapterMerge):
    """The merge of an adapter with its base is that adapter, rescaled."""

    def blocks(self, entry: Entry, name: str, weight: float) -> Iterable[Tensor]:
        """Yield a rescaled tensor; one that replaces a tensor of the base is interpolated with it."""
        tensor = self._adapter.read(entry.name)
        if self._adapter.full.get(name) == entry.name:
            tensor = merged(self._base.read(name), tensor, "linear", weight, entry.dtype)
        elif is_b(entry.name):
            tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32)) * weight
        return [tensor.to(entry.dtype)]
