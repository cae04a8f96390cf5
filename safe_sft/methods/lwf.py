"""LwF: on the task's own rows, answer as the aligned model would.

Paper: Li and Hoiem, "Learning without Forgetting", ECCV 2016, https://arxiv.org/abs/1606.09282, eq. 2 and 3.

    loss = task + safety_weight · mean over supervised task tokens of  T² · KL(p₀ ‖ p)

Departs from the paper in that there is one head for old and new tasks, so p₀ and p are next-token distributions, and
in the factor T². It needs no safety data, and protects only where the task's rows reach.

"Unforgotten Safety" (https://arxiv.org/abs/2512.10150) takes `‖h − h₀‖²` of the last hidden states instead, which
`teacher_divergence: hidden` does. With TRL's `loss_type: dft` and a weight of 0.1, this is "Anchored Supervised
Fine-Tuning" (https://arxiv.org/abs/2509.23753).
"""

from inspect import cleandoc
from typing import final

from torch import Tensor

from .base import Distillation, Preparation, TokenStates
from .kept import Kept, Outline
from .registry import register
from .teacher_distance import TeacherDistance


@register
@final
class LwF(Distillation):
    """Divergence from the aligned model on the task's own rows."""

    name = "lwf"
    default_weight = 1.0
    bibtex = cleandoc("""
        @inproceedings{li2016learning,
          title     = {Learning without Forgetting},
          author    = {Li, Zhizhong and Hoiem, Derek},
          booktitle = {European Conference on Computer Vision},
          url       = {https://arxiv.org/abs/1606.09282},
          year      = {2016}
        }
    """)
    reads = frozenset({"teacher_divergence", "teacher_temperature"})
    divergence = "kl"
    _distance: TeacherDistance

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return what the distance keeps in memory."""
        return TeacherDistance.keeps(cls, outline)

    def prepare(self, setup: Preparation) -> None:
        """Copy the aligned model's head."""
        self._distance = TeacherDistance.of(self, setup)

    def token_losses(self, task: TokenStates) -> Tensor:
        """Return `T² · KL(p₀ ‖ p)` of each token, in nats (or the chosen divergence)."""
        return self._distance(task)
