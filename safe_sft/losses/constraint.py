"""The weights of supervised tokens that hold a model to its distribution before tuning."""

import torch
from torch import Tensor

from .precision import wide

#: The least weight, so that no token is left out altogether.
LEAST_WEIGHT = 1e-3


def constrained_weights(log_ratios: Tensor, betas: Tensor) -> Tensor:
    """Compute `max(1e-3, 2·(1 − σ(β·(log p(y) − log p₀(y)))))` of each token.

    A cross-entropy with these weights has the gradient of `−(2/β)·log σ(β·(log p(y) − log p₀(y)))` (Qi et al. 2024,
    https://arxiv.org/abs/2406.05946, eq. 3): 1 where the model is the aligned one, less where it has already made the
    token more likely, and up to 2 where less.

    Args:
        log_ratios: `log p(y) − log p₀(y)` of each token, `(tokens,)`, in nats.
        betas: how tightly each token is held, `(tokens,)`; 0 gives the weight 1.

    Returns:
        `(tokens,)`, without gradient.
    """
    ratios = wide(log_ratios.detach())
    return (2 * torch.sigmoid(-betas.to(ratios) * ratios)).clamp_min(LEAST_WEIGHT)
