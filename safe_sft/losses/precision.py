"""The precision in which the safety terms are computed."""

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """Return `tensor` in float32, or in float64 where it is float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
