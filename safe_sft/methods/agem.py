"""A-GEM: learn the task, but not against safety rows.

Paper: Chaudhry et al., "Efficient Lifelong Learning with A-GEM", ICLR 2019, https://arxiv.org/abs/1812.00420, eq. 11.

    g ← g − (g·s) / (s·s) · s,    where g·s < 0

g is the gradient of the loss, s that of  mean over replayed tokens of −log p(y), both of the whole optimizer step.
Where they agree, or nothing is replayed, the step is the one of plain fine-tuning.

Departs from the paper in the rows that s is of: those that the step replays in turn, not a random batch of a memory
that is filled as training goes on.
"""

from inspect import cleandoc
from typing import final

from torch import Tensor

from .base import TokenStates
from .er import cross_entropy
from .projection import Projection
from .registry import register


@register
@final
class AGEM(Projection):
    """The gradient loses what would raise the cross-entropy of replayed safety rows."""

    name = "agem"
    default_weight = 0.0
    bibtex = cleandoc("""
        @inproceedings{chaudhry2019efficient,
          title     = {Efficient Lifelong Learning with {A-GEM}},
          author    = {Chaudhry, Arslan and Ranzato, Marc'Aurelio and Rohrbach, Marcus and Elhoseiny, Mohamed},
          booktitle = {International Conference on Learning Representations},
          url       = {https://arxiv.org/abs/1812.00420},
          year      = {2019}
        }
    """)
    has_loss = False

    def token_losses(self, replay: TokenStates) -> Tensor:
        """Return `−log p(y)` of each token, in nats."""
        return cross_entropy(replay)
