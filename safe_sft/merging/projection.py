"""Safe LoRA's projection of an update onto what alignment changed, and the cosine that says how much of it stays.

Hsu et al. 2024, "Safe LoRA: the Silver Lining of Reducing Safety Risks when Fine-tuning Large Language Models",
https://arxiv.org/abs/2405.16833, with `(d_out, d_in)` matrices:

    V = W_aligned − W_base        C = V·Vᵀ / ‖V‖        ΔW ← C·ΔW  where  cos(C·ΔW, ΔW) ≤ threshold

C is no projector: its eigenvalues are V's squared singular values over V's Frobenius norm. It is positive
semi-definite, so the cosine is in [0, 1]: ⟨C·ΔW, ΔW⟩ = ‖Vᵀ·ΔW‖² / ‖V‖. SafeMERGE (https://arxiv.org/abs/2503.17239)
takes the same cosine to choose where it merges.
"""

from math import isfinite, sqrt

import torch
from torch import Tensor

from .functions import cosine


def projected(alignment: Tensor, update: Tensor) -> Tensor:
    """Compute `V·Vᵀ·update / ‖V‖`, in the order of products that costs least.

    Args:
        alignment: what alignment changed, V, `(d_out, d_in)`, not zero.
        update: an update or its left factor, `(d_out, k)`.

    Returns:
        The projected update, `(d_out, k)`.
    """
    (rows, columns), k = alignment.shape, update.shape[1]
    norm = torch.linalg.vector_norm(alignment)
    if rows * (columns + k) < 2 * columns * k:  # C is smaller than V: only where `update` is a whole wide matrix
        return (alignment @ alignment.T).div_(norm) @ update
    return alignment @ (alignment.T @ update).div_(norm)


def update_cosine(alignment: Tensor, update: Tensor, after: Tensor) -> float | None:
    """Compute the cosine between an update and what the projection makes of it.

    Args:
        alignment: what alignment changed, V.
        update: the update, `(d_out, k)`.
        after: `projected(alignment, update)`.

    Returns:
        The cosine; 0 where nothing of the update is left; None where it is undefined, since either the update or what
        alignment changed is zero.

    Raises:
        ValueError: when a number is not finite.
    """
    if not (alignment.any() and update.any()):
        return None
    return _defined(cosine(after.reshape(-1), update.reshape(-1)), after)


def factored_cosine(alignment: Tensor, b: Tensor, a: Tensor, after: Tensor) -> float | None:
    """Compute `update_cosine` of `B·A` without forming it: `⟨X·A, Y·A⟩ = tr((Xᵀ·Y)·(A·Aᵀ))`.

    Args:
        alignment: what alignment changed, V, `(d_out, d_in)`.
        b: factor B, `(d_out, r)`.
        a: factor A, `(r, d_in)`.
        after: `projected(alignment, b)`, `(d_out, r)`.

    Returns:
        The cosine; 0 where nothing of the update is left; None where it is undefined.

    Raises:
        ValueError: when a number is not finite.
    """
    gram = (a @ a.T).double()

    def inner(left: Tensor, right: Tensor) -> float:
        return ((left.T @ right).double() * gram).sum().item()

    square, left = inner(b, b), inner(after, after)
    if not alignment.any() or square == 0:
        return None
    product = sqrt(max(left, 0.0) * max(square, 0.0))
    return _defined(inner(after, b) / product if product > 0 else float("nan"), after)


def _defined(value: float, after: Tensor) -> float:
    if isfinite(value):
        return min(1.0, max(0.0, value))  # rounding alone can leave the interval
    if not torch.isfinite(after).all():
        raise ValueError("Numbers of it are not finite. Merge models whose weights are finite.")
    return 0.0
