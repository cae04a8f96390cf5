"""The base class of merges: tensors that are written one by one, and the configuration that loads them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from .weights import MergeWeights
from .writer import Entry, write_shards


class Merge(ABC):
    """Two models or adapters that fit each other; no tensor is read yet. Concrete merges are final."""

    #: What the names of weight files begin with: `MODEL` or `ADAPTER`.
    stem: ClassVar[str]
    #: The library that loads the result.
    library: ClassVar[str]

    @abstractmethod
    def entries(self, dtype: torch.dtype | None) -> Mapping[Entry, str]:
        """Return what is written, each with the full model's tensor whose weight it takes; `dtype` is for floats."""

    @abstractmethod
    def blocks(self, entry: Entry, name: str, weight: float) -> Iterable[Tensor]:
        """Yield the content of one of `entries`, in order: tensors of its dtype."""

    @abstractmethod
    def write_configuration(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Write the configuration that loading the weights needs, but not the tokenizer."""

    @abstractmethod
    def check_loads(self, folder: Path) -> None:
        """Check that the written folder loads, by loading it onto no device."""

    def report(self) -> dict[str, Any]:
        """Return what the merge decided for the tensors that it has written, for its record."""
        return {}

    def write(
        self, folder: Path, weights: MergeWeights, dtype: torch.dtype | None, max_shard_size: int | None
    ) -> None:
        """Write the merged tensors, and then the configuration: without it, an unfinished folder does not load.

        Args:
            folder: folder that exists.
            weights: the merge weight of each tensor.
            dtype: dtype of floats; None keeps that of the tuned side.
            max_shard_size: most bytes of a file; None sets no limit.

        Raises:
            ValueError: when the weights do not fit the tensors' names.
        """
        entries = self.entries(dtype)
        by_name = weights.of(entries.values())

        def blocks(entry: Entry) -> Iterable[Tensor]:
            return self.blocks(entry, entries[entry], by_name[entries[entry]])

        write_shards(folder, self.stem, list(entries), blocks, max_shard_size)
        self.write_configuration(folder, dtype)

    def tensors(self, weight: float, dtype: torch.dtype | None) -> Iterable[tuple[str, Tensor]]:
        """Yield the merged tensors in memory, one at a time."""
        for entry, name in self.entries(dtype).items():
            yield entry.name, torch.cat([b.reshape(-1) for b in self.blocks(entry, name, weight)]).view(entry.shape)
