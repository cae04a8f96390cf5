"""MagMax: of several models tuned from one, each weight takes the largest of their changes.

Marczak et al. 2024, "MagMax: Leveraging Model Merging for Seamless Continual Learning",
https://arxiv.org/abs/2407.06322:

    τᵢ = θᵢ − θ₀        τ = the τᵢ of largest magnitude, weight by weight        θ₀ + λ·τ
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .functions import block_size, wide


def magmax(base: Tensor, models: Sequence[Tensor], weight: float = 1.0) -> Tensor:
    """Merge tensors of several models by the largest change of each number.

    Args:
        base: the tensor that all models started from, of any shape.
        models: the tensor of each model, of the same shape; the first of equal changes counts.
        weight: factor λ on the changes: 0 gives `base`, 1 numbers of `models`, both bit for bit.

    Returns:
        The merged tensor, in the shape and dtype of the last model's.

    Raises:
        ValueError: when shapes differ.
    """
    last = models[-1]
    shapes = {tuple(tensor.shape) for tensor in (base, *models)}
    if len(shapes) > 1:
        raise ValueError(f"Tensors of the shapes {sorted(shapes)} cannot be merged. Merge tensors of one shape.")
    return torch.cat([torch.empty(0, dtype=last.dtype), *magmax_blocks(base, models, weight, last.dtype)]).view(
        last.shape
    )


def magmax_blocks(base: Tensor, models: Sequence[Tensor], weight: float, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield the merged tensor, flattened, piece by piece, as a file is written.

    Args:
        base: the tensor that all models started from, of any shape.
        models: the tensor of each model, of the same shape.
        weight: factor λ on the changes.
        dtype: dtype of the result.

    Yields:
        Pieces `(numbers,)` of `dtype`; of integers and booleans, those of the last model as they are.
    """
    flat = [tensor.reshape(-1) for tensor in (base, *models)]
    size = block_size(flat[0])
    if not models[-1].is_floating_point():
        yield from flat[-1].split(size)
        return
    for start, *others in zip(*(tensor.split(size) for tensor in flat), strict=True):
        yield _largest_change(start, others, weight).to(dtype)


def _largest_change(base: Tensor, models: Sequence[Tensor], weight: float) -> Tensor:
    start, *others = wide(base, *models)
    chosen, magnitude = others[0], (others[0] - start).abs_()
    for other in others[1:]:
        change = (other - start).abs_()
        larger = change > magnitude
        chosen, magnitude = torch.where(larger, other, chosen), torch.where(larger, change, magnitude)
    if weight in (0, 1):  # the very numbers: θ₀ + (θᵢ − θ₀) would round them
        return chosen if weight else start
    return torch.lerp(start, chosen, weight)
