"""A stand-in for attention: it computes nothing, but keeps for its backward what FlashAttention and SDPA keep."""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

#: The name of this attention, for `attn_implementation`.
ATTENTION = "safe_sft_counted"


class _Counted(torch.autograd.Function):
    """Keeps queries, keys, values, the output, and one number for each query and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:3], dtype=torch.float32))
        return output


def counted_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """Return an empty output `(rows, width, heads, head width)` for inputs `(rows, heads, …)`."""
    return counted_product(query, key, value).transpose(1, 2).contiguous(), None


def counted_product(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """Return an empty output of the queries' shape `(rows, heads, …)`: the stand-in for torch's own product."""
    # Under autocast the values come from a matrix product in 16 bits; queries and keys are lowered to it here.
    query, key = query.to(value.dtype), key.to(value.dtype)
    return _Counted.apply(query, key, value)


AttentionInterface.register(ATTENTION, counted_attention)
