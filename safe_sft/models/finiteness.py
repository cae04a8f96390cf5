"""Whether all weights of a model are numbers."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .sharding import local

# So many tensors are measured in one call.
_GROUP = 256


@torch.no_grad()
def first_non_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with a value that is NaN or infinite, or None.

    Args:
        tensors: names and tensors; packed (quantised) and empty ones are passed over.
    """
    named = [(name, local(tensor.detach())) for name, tensor in tensors]
    named = [(name, t) for name, t in named if t.is_floating_point() and t.numel() and not t.is_meta]
    for start in range(0, len(named), _GROUP):
        group = named[start : start + _GROUP]
        # The largest magnitude is NaN where a value is, and cannot overflow as a sum of squares can.
        norms = torch._foreach_norm([tensor for _, tensor in group], float("inf"))
        flags = [value.float().isfinite() for value in norms]
        device = flags[0].device
        for (name, _), finite in zip(group, torch.stack([flag.to(device) for flag in flags]).tolist(), strict=True):
            if not finite:
                return name
    return None
