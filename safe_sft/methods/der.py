"""DER: on safety rows, answer as the aligned model answered.

Paper: Buzzega et al., "Dark Experience for General Continual Learning: a Strong, Simple Baseline", NeurIPS 2020,
https://arxiv.org/abs/2004.07211, eq. 5.

    loss = task + safety_weight · mean over replayed tokens of  KL(p₀ ‖ p)

Departs from the paper in the distance. The paper starts from the KL divergence and replaces it by `‖z − z₀‖²`
(`teacher_divergence: squared`). On a language model that is a sum over the whole vocabulary, thousands of times the
task's loss, and keeps the model from learning; the KL divergence means the same on every model. For the squared
distances no logits are built: with a frozen head W, `‖z − z₀‖² = (h − h₀)ᵀ WᵀW (h − h₀)`. A head that is trained, or
caps its logits, and the other divergences are handled in tiles.
"""

from inspect import cleandoc
from typing import ClassVar, final

from .base import Preparation, Replay
from .registry import register
from .teacher_distance import BUDGETS, ByTeacherDistance


@register
@final
class DER(ByTeacherDistance, Replay):
    """Divergence from the aligned model on the beginnings of replayed safety answers."""

    name = "der"
    default_weight = 3.0
    default_weights: ClassVar = {"relative_squared": 300.0}  # docs/results.md; at 3 it does not protect a real model
    bibtex = cleandoc("""
        @inproceedings{buzzega2020dark,
          title     = {Dark Experience for General Continual Learning: a Strong, Simple Baseline},
          author    = {Buzzega, Pietro and Boschini, Matteo and Porrello, Angelo and Abati, Davide and
                       Calderara, Simone},
          booktitle = {Advances in Neural Information Processing Systems},
          url       = {https://arxiv.org/abs/2004.07211},
          year      = {2020}
        }
    """)
    has_budget = True

    def budget(self, setup: Preparation) -> float:
        """Return the divergence at which answers still begin as the aligned model's do."""
        return BUDGETS[str(self.divergence_of(setup.args))]
