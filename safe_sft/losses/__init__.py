"""The mathematics of the safety terms: pure functions of tensors, with no model and no state.

Sums are taken in float32, or in float64 when the inputs are float64.
"""

from .head import Head
from .outputs import (
    draw_tokens,
    logit_gram,
    sampled_tokens,
    squared_logit_distance,
    tiled_squared_logit_distance,
    token_cross_entropy,
    token_divergence,
)
from .weights import low_rank_squared_norm, quadratic_penalty

__all__ = [
    "Head",
    "draw_tokens",
    "logit_gram",
    "low_rank_squared_norm",
    "quadratic_penalty",
    "sampled_tokens",
    "squared_logit_distance",
    "tiled_squared_logit_distance",
    "token_cross_entropy",
    "token_divergence",
]
