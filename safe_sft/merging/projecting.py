"""Safe LoRA of an adapter: the adapter, with `C·B` in place of `B` where the update leaves what alignment changed.

    C·(s·B·A)  =  s·(C·B)·A

so the result is an adapter of the same rank, and nothing of the size `(d_out, d_out)` is made.
"""

from collections.abc import Iterable
from typing import Any, final

from torch import Tensor

from .adapter import Adapter
from .alignment import AdapterUpdates
from .checkpoint import TensorSource
from .rescaling import AdapterMerge
from .side import Side
from .writer import Entry


@final
class AdapterProjection(AdapterMerge):
    """The tuned adapter, with the updates projected whose cosine is at most the threshold; others stay bit for bit.

    A bias of its own (`lora_bias`) is no matrix, and stays as it is.

    Args:
        aligned: the model that the adapter is one of.
        adapter: the tuned adapter.
        base: the model before alignment.

    Raises:
        ValueError: when the three do not fit each other.
    """

    def __init__(self, aligned: Side, adapter: Adapter, base: TensorSource):
        super().__init__(aligned, adapter)
        self._updates = AdapterUpdates(adapter, self._base, base, inclusive=True)

    def blocks(self, entry: Entry, name: str, weight: float) -> Iterable[Tensor]:
        """Yield a tensor of the adapter; `weight` is the threshold."""
        changed: Tensor | None = None
        if self._adapter.full.get(name) == entry.name:
            changed = self._updates.full_tensor(name, weight)
        elif name in self._adapter.pairs and self._adapter.pairs[name].b == entry.name:
            changed = self._updates.left_factor(name, weight)
        tensor = self._adapter.read(entry.name) if changed is None else changed
        return [tensor.to(entry.dtype)]

    def report(self) -> dict[str, Any]:
        """Return the cosine of each update, and which were projected."""
        return self._updates.report()
