"""The last layer of a language model, as the losses see it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .precision import wide


@dataclass(frozen=True)
class Head:
    """How hidden states become logits: `cap(scale · (W h + b))`.

    Attributes:
        weight: the matrix `W`, `(vocab, d)`.
        bias: the bias `b`, `(vocab,)`, or None.
        scale: constant factor on the logits.
        softcap: the cap `c` of logits, in `c·tanh(z / c)` as in Gemma 2, or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits `(tokens, vocab)` of hidden states `(tokens, d)`, in float32 (float64 for float64)."""
        products = wide(hidden) @ wide(self.weight).T
        return self.scaled_and_capped(products if self.bias is None else products + wide(self.bias))

    def scaled_and_capped(self, products: Tensor) -> Tensor:
        """Turn `W h + b`, in any shape, into logits."""
        logits = products * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def words(self, part: slice) -> "Head":
        """Return the head of a part of the vocabulary."""
        return Head(
            self.weight[part], None if self.bias is None else self.bias[part], scale=self.scale, softcap=self.softcap
        )

    def without_bias(self) -> "Head":
        """Return the head without its bias, which gives zero logits for zero hidden states."""
        return replace(self, bias=None)
