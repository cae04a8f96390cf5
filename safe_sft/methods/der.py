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
from typing import final

from torch import Tensor

from .base import Preparation, Replay, TokenStates
from .kept import Kept, Outline
from .registry import register
from .teacher_distance import BUDGETS, TeacherDistance


@register
@final
class DER(Replay):
    """Divergence from the aligned model on the beginnings of replayed safety answers."""

    name = "der"
    default_weight = 3.0
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
    reads = Replay.reads | {"teacher", "teacher_cache", "teacher_divergence", "teacher_memory", "teacher_temperature"}
    needs_teacher = True
    divergence = "kl"
    has_budget = True
    _distance: TeacherDistance

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return what the distance keeps in memory."""
        return TeacherDistance.keeps(cls, outline)

    def prepare(self, setup: Preparation) -> None:
        """Copy the aligned model's head."""
        self._distance = TeacherDistance.of(self, setup)

    def budget(self, setup: Preparation) -> float:
        """Return the divergence at which answers still begin as the aligned model's do."""
        return BUDGETS[str(self.divergence_of(setup.args))]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the unit of the distance, for a checkpoint."""
        return self._distance.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the unit of the distance."""
        self._distance.load_state_dict(state)

    def token_losses(self, replay: TokenStates) -> Tensor:
        """Return `KL(p₀ ‖ p)` of each token, in nats (or the chosen distance)."""
        return self._distance(replay)
