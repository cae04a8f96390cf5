"""DER: on safety rows, give the logits that the aligned model gave.

Paper: Buzzega et al., "Dark Experience for General Continual Learning: a Strong, Simple Baseline", NeurIPS 2020,
https://arxiv.org/abs/2004.07211, eq. 5.

    loss = task + safety_weight · mean over replayed tokens of  ‖z − z₀‖²

Departs from the paper in that no logits are built: with a frozen head W, `‖z − z₀‖² = (h − h₀)ᵀ WᵀW (h − h₀)`.
A head that is trained, or caps its logits, is handled in tiles. The norm is a sum over the vocabulary, as in the
paper; common code takes the mean, which makes the same weight thousands of times smaller. `teacher_divergence`
replaces it by KL, reverse KL or JSD.
"""

from inspect import cleandoc
from typing import final

from torch import Tensor

from .base import Preparation, Replay, TokenStates
from .kept import Kept, Outline
from .registry import register
from .teacher_distance import TeacherDistance


@register
@final
class DER(Replay):
    """Squared distance to the aligned model's logits on replayed safety rows."""

    name = "der"
    default_weight = 0.1
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
    reads = Replay.reads | {"teacher", "teacher_cache", "teacher_divergence", "teacher_temperature"}
    needs_teacher = True
    divergence = "squared"
    _distance: TeacherDistance

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return what the distance keeps in memory."""
        return TeacherDistance.keeps(cls, outline)

    def prepare(self, setup: Preparation) -> None:
        """Copy the aligned model's head."""
        self._distance = TeacherDistance.of(self, setup)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the unit of the distance, for a checkpoint."""
        return self._distance.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the unit of the distance."""
        self._distance.load_state_dict(state)

    def token_losses(self, replay: TokenStates) -> Tensor:
        """Return `‖z − z₀‖²` of each token, in squared logits (or the chosen divergence, in nats)."""
        return self._distance(replay)
