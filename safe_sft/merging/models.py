"""The merge of full models, tensor by tensor, also where they differ in layout."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ..models.folders import MODEL
from .base import Merge
from .checkpoint import TensorSource
from .companions import copy_model_files
from .formulas import Formula
from .loadable import check_model
from .matching import Matched
from .writer import Entry


@final
class ModelMerge(Merge):
    """Full models, or models with adapters on them.

    The result has the layout of the tuned model: rows of the vocabulary that only it has are kept, and tensors that it
    lacks are left out.

    Args:
        tuned: the tuned model.
        others: the other models, under its names, in the order in which the formula takes them.
        formula: what is computed from the tensors of one name.
    """

    stem, library = MODEL, "transformers"

    def __init__(self, tuned: TensorSource, others: Sequence[Matched], formula: Formula):
        self.tuned, self._others, self._formula = tuned, others, formula
        self.names = list(tuned.names)

    def entries(self, dtype: torch.dtype | None) -> dict[Entry, str]:
        """Return the tensors of the tuned model; `dtype` is for floats."""
        entries = {}
        for name in self.names:
            own = self.tuned.dtype(name)
            wanted = dtype if dtype is not None and own.is_floating_point else own
            entries[Entry(name, self.tuned.shape(name), wanted)] = name
        return entries

    def blocks(self, entry: Entry, name: str, weight: float) -> Iterator[Tensor]:
        """Yield a merged tensor, piece by piece."""
        tensors = [self.tuned.read(name), *(other.read(name) for other in self._others)]
        if all(tensor.shape == tensors[0].shape for tensor in tensors):
            yield from self._formula.blocks(name, tensors, weight, entry.dtype)
            return
        rows = min(map(len, tensors))
        yield from self._formula.blocks(name, [tensor[:rows] for tensor in tensors], weight, entry.dtype)
        yield tensors[0][rows:].reshape(-1).to(entry.dtype)

    def report(self) -> dict[str, Any]:
        """Return what the formula decided."""
        return self._formula.report()

    def write_configuration(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Write the tuned model's configuration, without its quantisation."""
        config = dict(self.tuned.config)
        if config.pop("quantization_config", None) is not None or dtype is not None:
            largest = max(self.entries(dtype), key=lambda entry: entry.bytes)
            config.pop("torch_dtype", None)
            config["dtype"] = str(largest.dtype).removeprefix("torch.")
        copy_model_files(self.tuned.folder, folder, config)

    def check_loads(self, folder: Path) -> None:
        """Check that the model loads with the class that its configuration names."""
        check_model(folder)
