"""SafeGrad: learn the task, but not against the aligned model's answers to safety rows, which are learned as well.

Paper: Yi et al., "Gradient Surgery for Safe LLM Fine-Tuning", 2025, https://arxiv.org/abs/2508.07172.

    g ← g − min(g·s, 0) / (s·s) · s + safety_weight · s

g is the gradient of the loss, s that of  mean over replayed tokens of KL(p₀ ‖ p), both of the whole optimizer step.

Departs from the paper in that only the beginnings of safety answers are replayed, and in that other distances than the
KL divergence may be chosen (`teacher_divergence`).
"""

from inspect import cleandoc
from typing import final

from torch import Tensor

from .base import Preparation, Replay, TokenStates
from .kept import Kept, Outline
from .projection import Projection
from .registry import register
from .teacher_distance import TeacherDistance


@register
@final
class SafeGrad(Projection):
    """Divergence from the aligned model on replayed safety answers, which the gradient may not raise."""

    name = "safegrad"
    default_weight = 1.0
    bibtex = cleandoc("""
        @article{yi2025gradient,
          title   = {Gradient Surgery for Safe {LLM} Fine-Tuning},
          author  = {Yi, Biao and Li, Jiahao and Zhang, Baolei and Nie, Lihai and Li, Tong and Huang, Tiansheng and
                     Liu, Zheli},
          journal = {arXiv preprint arXiv:2508.07172},
          url     = {https://arxiv.org/abs/2508.07172},
          year    = {2025}
        }
    """)
    reads = Replay.reads | {"teacher", "teacher_cache", "teacher_divergence", "teacher_memory", "teacher_temperature"}
    needs_teacher = True
    divergence = "kl"
    _distance: TeacherDistance

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return the size of `s`, and what the distance keeps in memory."""
        return [*super().keeps(outline), *TeacherDistance.keeps(cls, outline)]

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
        """Return `KL(p₀ ‖ p)` of each token, in nats (or the chosen distance)."""
        return self._distance(replay)
