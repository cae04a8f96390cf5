"""What alignment changed in the weights that an adapter adapts, and where the adapter leaves it."""

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor

from .adapter import Adapter, FactorKeys
from .checkpoint import TensorSource
from .decisions import Decisions
from .embeddings import embedding_names
from .functions import wide
from .projection import factored_cosine, projected, update_cosine


@final
class AdapterUpdates:
    """The updates of an adapter against what alignment changed, one weight at a time, matched by name.

    Args:
        adapter: the tuned adapter, on the aligned model.
        aligned: the aligned model.
        base: the model before alignment.
        inclusive: whether an update whose cosine is the threshold itself is changed, too.

    Raises:
        ValueError: when a weight that the adapter changes is not in both models, or is there in another shape.
    """

    def __init__(self, adapter: Adapter, aligned: TensorSource, base: TensorSource, *, inclusive: bool):
        self._adapter, self._sources, self._inclusive = adapter, (aligned, base), inclusive
        self._decisions = Decisions()
        self._stored: Mapping[str, tuple[str, ...]] = {
            name: tuple(self._find(source, name) for source in self._sources)
            for name in (*adapter.pairs, *adapter.full)
        }

    def left_factor(self, name: str, threshold: float) -> Tensor | None:
        """Return `C·B` of a weight, `(d_out, r)` in float32, where its update is to be changed; None where it is kept.

        Args:
            name: name of the weight in the full model.
            threshold: threshold of the cosine.
        """
        pair = self._adapter.pairs[name]
        (b, a), change = wide(self._adapter.read(pair.b), self._adapter.read(pair.a)), self._change(name)
        change = change.T if pair.transposed else change
        after = projected(change, b) if change.any() else b
        leaves = self._decide(name, threshold, factored_cosine, change, b, a, after)
        return after if leaves else None

    def full_tensor(self, name: str, threshold: float) -> Tensor | None:
        """Return a replaced tensor (`modules_to_save`) with its update projected; None where it is kept.

        Args:
            name: name of the tensor in the full model.
            threshold: threshold of the cosine.
        """
        tuned, aligned = wide(self._adapter.read(self._adapter.full[name]), self._read(name, 0))
        if tuned.ndim != 2:
            return None
        update, change = tuned - aligned, self._change(name)
        transposed = name == embedding_names(self._sources[0].folder).embedding
        if transposed:
            update, change = update.T, change.T
        after = projected(change, update) if change.any() else update
        if not self._decide(name, threshold, update_cosine, change, update, after):
            return None
        return aligned + (after.T if transposed else after)

    def leaving(self, threshold: float) -> frozenset[str]:
        """Return the names of all weights whose update is to be changed."""
        return frozenset(name for name in self._adapter.pairs if self.left_factor(name, threshold) is not None)

    def report(self) -> dict[str, Any]:
        """Return the cosine of each update, and which were changed."""
        return self._decisions.report()

    def _decide(self, name: str, threshold: float, cosine_of: Any, *tensors: Tensor) -> bool:
        try:
            cosine = cosine_of(*tensors)
        except ValueError as error:
            raise ValueError(f"The update of '{name}' cannot be merged. {error}") from error
        return self._decisions.decide(name, cosine, threshold, inclusive=self._inclusive)

    def _change(self, name: str) -> Tensor:
        aligned, base = wide(self._read(name, 0), self._read(name, 1))
        return aligned - base

    def _read(self, name: str, which: int) -> Tensor:
        return self._sources[which].read(self._stored[name][which])

    def _find(self, source: TensorSource, name: str) -> str:
        """Return where a model has a weight; a head that it shares with its embedding is there."""
        stored = name
        if name not in source.names:
            names = embedding_names(source.folder)
            if not (source.tied and name == names.head):
                self._refuse(source, name, "which has no tensor of that name")
            stored = names.embedding
        if source.shape(stored) != (shape := self._shape(name)):
            self._refuse(source, name, f"where it has shape {source.shape(stored)}, and not {shape}")
        return stored

    def _shape(self, name: str) -> tuple[int, ...]:
        if name in self._adapter.full:
            return self._adapter.shape(self._adapter.full[name])
        pair: FactorKeys = self._adapter.pairs[name]
        shape = (self._adapter.shape(pair.b)[0], *self._adapter.shape(pair.a)[1:])
        return shape[::-1] if pair.transposed else shape

    def _refuse(self, source: TensorSource, name: str, reason: str) -> None:
        raise ValueError(
            f"The adapter '{self._adapter.label}' changes '{name}' of '{source.label}', {reason}, so what alignment "
            "changed there is not known. Give the aligned model that it was tuned on, and as `base` the model that "
            "this one was aligned from: both have the same tensors."
        )
