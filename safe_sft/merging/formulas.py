"""What a merge of full models computes from the tensors of one name: one class for each kind of merge."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Set
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from .decisions import Decisions
from .functions import block_size, merged_blocks, wide
from .magmax import magmax_blocks
from .projection import projected, update_cosine


class Formula(ABC):
    """Makes one tensor of those of the same name. Concrete formulas are final."""

    #: The models that it takes, in the order of `tensors`, before the further tuned ones; the tuned one comes first.
    takes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def blocks(self, name: str, tensors: Sequence[Tensor], number: float, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield the merged tensor, flattened, piece by piece.

        Args:
            name: name of the tensor in the tuned model.
            tensors: the tensors of this name, of one shape, in the order of `takes`.
            number: what the merge is swept over: its weight, or its threshold.
            dtype: dtype of the result.
        """

    def report(self) -> dict[str, Any]:
        """Return what the formula decided for the tensors that it has merged, for the record of the merge."""
        return {}


@final
class Interpolation(Formula):
    """`linear`, `slerp` and `task_arithmetic`.

    Args:
        method: one of the three.
    """

    takes = ("tuned", "aligned")

    def __init__(self, method: str):
        self._method = method

    def blocks(self, name: str, tensors: Sequence[Tensor], number: float, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield the tensor between the aligned and the tuned one."""
        tuned, aligned = tensors
        yield from merged_blocks(aligned, tuned, self._method, number, dtype)


@final
class MagMax(Formula):
    """The largest change of each number since the model before alignment."""

    takes = ("tuned", "aligned", "base")

    def blocks(self, name: str, tensors: Sequence[Tensor], number: float, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield the base with the largest changes; of equal ones, alignment's."""
        tuned, aligned, base, *further = tensors
        yield from magmax_blocks(base, [aligned, *further, tuned], number, dtype)


class _OfUpdates(Formula):
    """Looks at the update of each matrix, and changes it where it leaves what alignment changed.

    Args:
        transposed: names of the tensors that are stored as `(d_in, d_out)`.
    """

    #: Whether an update whose cosine is the threshold itself is changed, too.
    inclusive: ClassVar[bool]

    def __init__(self, transposed: Set[str]):
        self._transposed, self._decisions = transposed, Decisions()

    def report(self) -> dict[str, Any]:
        """Return the cosine of each update, and which were changed."""
        return self._decisions.report()

    def _leaves(self, name: str, tensors: Sequence[Tensor], threshold: float) -> Tensor | None:
        """Return the projected update `(d_out, d_in)` where the update is to be changed; None where it is kept."""
        tuned, aligned, base = tensors[:3]
        if not tuned.is_floating_point() or tuned.ndim < 2:
            return None
        update = _difference(tuned, aligned)
        if tuned.ndim > 2:
            if update.any():
                raise ValueError(
                    f"The tensor '{name}' of shape {tuple(tuned.shape)} was tuned, and is no matrix, so its "
                    "update has no projection. Merge with another method, or tune a model that keeps it as matrices."
                )
            return None
        change = _difference(aligned, base)
        if name in self._transposed:
            update, change = update.T, change.T
        after = projected(change, update) if update.any() and change.any() else update
        try:
            cosine = update_cosine(change, update, after)
        except ValueError as error:
            raise ValueError(f"The tensor '{name}' cannot be merged. {error}") from error
        leaves = self._decisions.decide(name, cosine, threshold, inclusive=self.inclusive)
        return after if leaves else None


@final
class SafeLora(_OfUpdates):
    """`aligned + C·(tuned − aligned)` where the cosine is at most the threshold; elsewhere the tuned tensor."""

    takes, inclusive = ("tuned", "aligned", "base"), True

    def blocks(self, name: str, tensors: Sequence[Tensor], number: float, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield the tensor with its update projected, or the tuned one, bit for bit."""
        update, (tuned, aligned, _) = self._leaves(name, tensors, number), tensors
        if update is None:
            yield from _as_it_is(tuned, dtype)
            return
        update = update.T if name in self._transposed else update
        flat, size = aligned.reshape(-1), block_size(aligned)
        for block, change in zip(flat.split(size), update.reshape(-1).split(size), strict=True):
            yield (block + change).to(dtype)


@final
class SafeMerge(_OfUpdates):
    """`t·tuned + (1 − t)·safe` where the cosine is below the threshold; elsewhere the tuned tensor.

    That is the paper's `aligned + t·ΔW_task + (1 − t)·ΔW_safe`: the weights sum to 1, so the aligned tensor drops out.

    Args:
        transposed: names of the tensors that are stored as `(d_in, d_out)`.
        threshold: threshold of the cosine.
    """

    takes, inclusive = ("tuned", "aligned", "base", "safe"), False

    def __init__(self, transposed: Set[str], threshold: float):
        super().__init__(transposed)
        self._threshold = threshold

    def blocks(self, name: str, tensors: Sequence[Tensor], number: float, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield the tensor merged with the safe one, or the tuned one, bit for bit."""
        tuned, *_, safe = tensors
        if self._leaves(name, tensors, self._threshold) is None:
            yield from _as_it_is(tuned, dtype)
        else:
            yield from merged_blocks(safe, tuned, "linear", number, dtype)


def _difference(tensor: Tensor, other: Tensor) -> Tensor:
    first, second = wide(tensor, other)
    return first - second


def _as_it_is(tensor: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    is_float = tensor.is_floating_point()
    for block in tensor.reshape(-1).split(block_size(tensor)):
        yield block.to(dtype) if is_float else block
