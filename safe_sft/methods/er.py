"""ER: train on safety rows again, beside the task.

Paper: Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019, https://arxiv.org/abs/1902.10486.

    loss = task + safety_weight · mean over replayed tokens of  −log p(y)

Departs from the paper in that the two means are weighted rather than pooled, so that `safety_weight` does not depend
on how many rows either side has.
"""

from inspect import cleandoc
from typing import final

import torch
from torch import Tensor

from ..losses import token_cross_entropy
from .base import Preparation, Replay, TokenStates
from .registry import register

#: What `safety_weight: auto` lets a replayed token lose beside what the aligned model loses, in nats.
_MORE = 0.02


@register
@final
class ER(Replay):
    """Cross-entropy on replayed safety rows."""

    name = "er"
    default_weight = 1.0
    bibtex = cleandoc("""
        @article{chaudhry2019tiny,
          title   = {On Tiny Episodic Memories in Continual Learning},
          author  = {Chaudhry, Arslan and Rohrbach, Marcus and Elhoseiny, Mohamed and Ajanthan, Thalaiyasingam and
                     Dokania, Puneet K. and Torr, Philip H. S. and Ranzato, Marc'Aurelio},
          journal = {arXiv preprint arXiv:1902.10486},
          url     = {https://arxiv.org/abs/1902.10486},
          year    = {2019}
        }
    """)

    has_budget = True

    def budget(self, setup: Preparation) -> float:
        """Return what the aligned model itself loses on the safety rows, and a little more, in nats."""
        with torch.no_grad():
            own = self.token_losses(setup.aligned_states()).mean().item()
        return own + _MORE

    def token_losses(self, replay: TokenStates) -> Tensor:
        """Return `−log p(y)` of each token, in nats."""
        return cross_entropy(replay)


def cross_entropy(states: TokenStates) -> Tensor:
    """Return `−log p(y)` of each token, `(tokens,)`, in nats."""
    head = states.head.gathered().to(states.hidden.device)
    with states.autocast():
        return token_cross_entropy(states.hidden, head, states.targets)
