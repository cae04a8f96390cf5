"""The mathematics of merging: an aligned and a tuned tensor become one.

Every formula is elementwise once its coefficients are known, so it runs in blocks that stay in the processor's cache:
no wide copy of a whole tensor is made. Arithmetic is in float32, or in float64 when an input is float64. At weight 0
the result is the aligned tensor and at weight 1 the tuned one, bit for bit.
"""

from collections.abc import Iterator
from math import acos, nan, sin, sqrt

import torch
from torch import Tensor

#: Beyond this |cosine| two tensors count as parallel and SLERP is linear: sin(theta) is too small to divide by.
PARALLEL_COSINE = 0.9995
# 512 Ki numbers: the blocks of both inputs and of the result stay in the cache of a processor core or its neighbours.
_BLOCK = 2**19
_DEVICE_BLOCK = 2**24

#: The merges of two tensors that this file knows.
INTERPOLATIONS = ("linear", "slerp", "task_arithmetic")


def linear(aligned: Tensor, tuned: Tensor, weight: float) -> Tensor:
    """Compute `(1 − weight)·aligned + weight·tuned`.

    Args:
        aligned: the aligned tensor, of any shape.
        tuned: the tuned tensor, of the same shape.
        weight: 0 is aligned, 1 is tuned.

    Returns:
        The merged tensor, in the shape and dtype of `tuned`.
    """
    return merged(aligned, tuned, "linear", weight)


def task_arithmetic(aligned: Tensor, tuned: Tensor, weight: float) -> Tensor:
    """Compute `aligned + weight·(tuned − aligned)` (Ilharco et al. 2023, https://arxiv.org/abs/2212.04089).

    Within [0, 1] this is `linear`. Above 1 it goes on in the direction of tuning, below 0 it goes against it.

    Args:
        aligned: the aligned tensor, of any shape.
        tuned: the tuned tensor, of the same shape.
        weight: factor on the task vector, any finite number.

    Returns:
        The merged tensor, in the shape and dtype of `tuned`.
    """
    return merged(aligned, tuned, "task_arithmetic", weight)


def slerp(aligned: Tensor, tuned: Tensor, weight: float) -> Tensor:
    """Interpolate whole tensors on a sphere (Shoemake 1985, https://doi.org/10.1145/325165.325242).

    `sin((1 − weight)·θ)/sin θ · aligned + sin(weight·θ)/sin θ · tuned`, with θ the angle between the flattened
    tensors. Linear when |cos θ| > 0.9995, and when a tensor is zero or not finite.

    Args:
        aligned: the whole aligned tensor, of any shape (a shard would have another angle).
        tuned: the tuned tensor, of the same shape.
        weight: 0 is aligned, 1 is tuned.

    Returns:
        The merged tensor, in the shape and dtype of `tuned`.
    """
    return merged(aligned, tuned, "slerp", weight)


def merged(aligned: Tensor, tuned: Tensor, method: str, weight: float, dtype: torch.dtype | None = None) -> Tensor:
    """Merge two tensors by a method that is named.

    Args:
        aligned: the aligned tensor, of any shape.
        tuned: the tuned tensor, of the same shape.
        method: one of `INTERPOLATIONS`.
        weight: 0 is aligned, 1 is tuned.
        dtype: dtype of the result; that of `tuned` by default.

    Returns:
        The merged tensor, of the same shape.

    Raises:
        ValueError: when shapes differ.
    """
    result = torch.empty(tuned.shape, dtype=dtype or tuned.dtype, device=tuned.device)
    flat, start = result.view(-1), 0
    for block in merged_blocks(aligned, tuned, method, weight, result.dtype):
        flat[start : start + block.numel()] = block
        start += block.numel()
    return result


def merged_blocks(aligned: Tensor, tuned: Tensor, method: str, weight: float, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield the merged tensor, flattened, piece by piece, as a file is written.

    Args:
        aligned: the aligned tensor, of any shape.
        tuned: the tuned tensor, of the same shape.
        method: one of `INTERPOLATIONS`.
        weight: 0 is aligned, 1 is tuned.
        dtype: dtype of the result.

    Yields:
        Pieces `(numbers,)` of `dtype`; of integers and booleans, the tuned tensor as it is.

    Raises:
        ValueError: when shapes differ.
    """
    if aligned.shape != tuned.shape:
        raise ValueError(
            f"An aligned tensor of shape {tuple(aligned.shape)} cannot be merged with a tuned one of shape "
            f"{tuple(tuned.shape)}. Merge tensors of one shape."
        )
    a, t = aligned.reshape(-1), tuned.reshape(-1)
    size = block_size(t)
    if not t.is_floating_point():
        yield from t.split(size)
        return
    if weight in (0, 1):
        yield from (block.to(dtype) for block in (t if weight else a).split(size))
        return
    factors = slerp_factors(a, t, weight) if method == "slerp" else None
    for x, y in zip(a.split(size), t.split(size), strict=True):
        # `lerp` itself computes bfloat16 and float16 in float32, and rounds once; anything else is widened first.
        if factors is not None or not x.dtype == y.dtype == dtype:
            x, y = wide(x, y)
        merged_block = torch.lerp(x, y, weight) if factors is None else (x * factors[0]).add_(y, alpha=factors[1])
        yield merged_block.to(dtype)


def slerp_factors(aligned: Tensor, tuned: Tensor, weight: float) -> tuple[float, float] | None:
    """Return what SLERP multiplies the two tensors by, or None where it is linear.

    Args:
        aligned: the aligned tensor, flattened.
        tuned: the tuned tensor, flattened.
        weight: 0 is aligned, 1 is tuned.

    Returns:
        The factors of `aligned` and `tuned`.
    """
    between = cosine(aligned, tuned)
    if not abs(between) <= PARALLEL_COSINE:  # also when it is not a number
        return None
    angle = acos(between)
    return sin((1 - weight) * angle) / sin(angle), sin(weight * angle) / sin(angle)


def cosine(a: Tensor, b: Tensor) -> float:
    """Compute the cosine of the angle between two vectors; NaN when one is zero or not finite.

    Args:
        a: a vector.
        b: another one, of the same length.
    """
    products = torch.zeros(3, dtype=torch.float64)
    for x, y in zip(a.split(_BLOCK), b.split(_BLOCK), strict=True):
        x, y = wide(x, y)
        products += torch.stack([x @ y, x @ x, y @ y]).to(products)
    dot, square, other = products.tolist()
    return dot / sqrt(square * other) if square * other > 0 else nan


def block_size(tensor: Tensor) -> int:
    """Return how many numbers are merged at a time on the device of a tensor."""
    return _BLOCK if tensor.device.type == "cpu" else _DEVICE_BLOCK


def wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors in one dtype, float32 or wider, so that arithmetic rounds once."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
