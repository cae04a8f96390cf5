"""Penalties on the weights themselves."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .precision import wide

# A quadratic penalty holds the differences of at most this many parameters at a time (512 MiB in float32).
_GROUP_ELEMENTS = 2**27


class _QuadraticPenalty(torch.autograd.Function):
    """`½ Σ ωᵢ (θᵢ − θᵢ*)²` over lists of tensors; the backward pass recomputes the differences."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Sequence[Tensor], importance: Sequence[Tensor] | None, *parameters: Tensor
    ) -> Tensor:
        ctx.anchors, ctx.importance = anchors, importance
        ctx.save_for_backward(*parameters)
        difference = _difference(parameters, anchors)
        if importance is not None:
            torch._foreach_mul_(difference, torch._foreach_sqrt(list(importance)))
        return torch.stack(torch._foreach_norm(difference)).square().sum() / 2

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        gradient: list[Tensor] = _difference(ctx.saved_tensors, ctx.anchors)
        if ctx.importance is not None:
            torch._foreach_mul_(gradient, list(ctx.importance))
        torch._foreach_mul_(gradient, grad_outputs[0])
        return (None, None, *(g.to(p.dtype) for g, p in zip(gradient, ctx.saved_tensors, strict=True)))


def _difference(parameters: Sequence[Tensor], anchors: Sequence[Tensor]) -> list[Tensor]:
    return list(torch._foreach_sub([wide(p) for p in parameters], [wide(a) for a in anchors]))


def quadratic_penalty(
    parameters: Sequence[Tensor], anchors: Sequence[Tensor], importance: Sequence[Tensor] | None = None
) -> Tensor:
    """Compute `½ Σ ωᵢ (θᵢ − θᵢ*)²` (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, eq. 3, without λ).

    Args:
        parameters: the tensors θ, of any shapes.
        anchors: the tensors θ*, of the same shapes; no gradient flows to them.
        importance: the tensors ω ≥ 0, of the same shapes; `None` means 1 everywhere.

    Returns:
        The penalty, a scalar.

    Raises:
        ValueError: when the shapes of a parameter and its anchor differ.
    """
    for parameter, anchor in zip(parameters, anchors, strict=True):
        if parameter.shape != anchor.shape:
            raise ValueError(
                f"Anchor of shape {tuple(anchor.shape)} for a parameter of shape {tuple(parameter.shape)}."
            )
    penalties = [
        _QuadraticPenalty.apply(
            [anchors[i] for i in group],
            None if importance is None else [importance[i] for i in group],
            *(parameters[i] for i in group),
        )
        for group in _groups(parameters)
    ]
    return torch.stack([penalty.to(penalties[0].device) for penalty in penalties]).sum()


def _groups(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Group the indices of tensors on one device, with at most `_GROUP_ELEMENTS` numbers held at once."""
    groups: list[list[int]] = []
    room: dict[torch.device, int] = {}
    newest: dict[torch.device, list[int]] = {}
    for index, parameter in enumerate(parameters):
        device = parameter.device
        if room.get(device, 0) < parameter.numel():
            room[device], newest[device] = _GROUP_ELEMENTS, []
            groups.append(newest[device])
        newest[device].append(index)
        room[device] -= parameter.numel()
    return groups


def low_rank_squared_norm(left: Tensor, right: Tensor) -> Tensor:
    """Compute `‖L R‖²` of each pair of a stack from `r × r` products: `tr((LᵀL)(RRᵀ))`.

    Args:
        left: the matrices L, `(pairs, d_out, r)`.
        right: the matrices R, `(pairs, r, d_in)`.

    Returns:
        `(pairs,)`.
    """
    left, right = wide(left), wide(right)
    return ((left.mT @ left) * (right @ right.mT)).sum((-2, -1))


def weighted_square_sum(weight: Tensor, importance: Tensor | None = None) -> float:
    """Compute `Σ ωᵢ θᵢ²`.

    Args:
        weight: the tensor θ, of any shape.
        importance: the tensor ω ≥ 0, of the same shape; None means 1 everywhere.
    """
    square = wide(weight.detach()).square()
    return (square if importance is None else square * importance.to(square)).sum(dtype=torch.float64).item()
