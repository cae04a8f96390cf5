"""The mathematics of the safety terms: pure functions of tensors, with no model and no state.

Sums are taken in float32, or in float64 when the inputs are float64.
"""

from .constraint import constrained_weights
from .head import Head
from .outputs import (
    centred_logit_gram,
    draw_tokens,
    live_words,
    logit_gram,
    sampled_tokens,
    squared_hidden_distance,
    squared_logit_distance,
    tiled_squared_logit_distance,
    token_cross_entropy,
    token_divergence,
)
from .weights import low_rank_squared_norm, quadratic_penalty

__all__ = [
    "Head",
    "centred_logit_gram",
    "constrained_weights",
    "draw_tokens",
    "live_words",
    "logit_gram",
    "low_rank_squared_norm",
    "quadratic_penalty",
    "sampled_tokens",
    "squared_hidden_distance",
    "squared_logit_distance",
    "tiled_squared_logit_distance",
    "token_cross_entropy",
    "token_divergence",
]
