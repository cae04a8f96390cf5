"""Lisa: alternate between safety rows and the task, and hold each to where the other left the weights.

Paper: Huang et al., "Lisa: Lazy Safety Alignment for Large Language Models against Harmful Fine-tuning Attack",
NeurIPS 2024, https://arxiv.org/abs/2405.18641, eq. 2 and algorithm 1.

    loss = cross-entropy on safety rows, for `lisa_safety_steps` steps, then on task rows, for `lisa_task_steps` steps,
           + safety_weight · ‖θ − θ°‖² / ‖θ*‖²,  θ° the last weights of the other state (θ* at first)

Departs from the paper in that the distance is a share of the aligned weights' own size, where the paper has half of
`‖θ − θ°‖²` (`penalty_normalization: none`, and its published code has 0.1 as weight); in that, for LoRA, θ is by
default the effective weight `W + s·B·A`; and in that an epoch has every row of the task, and the steps on safety rows
beside them.
"""

from inspect import cleandoc
from typing import final

import torch
from torch import Tensor, nn

from .base import WeightAnchor
from .kept import Kept, Outline
from .registry import register

#: Name of the number of steps among the tensors of a checkpoint.
_TAKEN = "steps_taken"


@register
@final
class Lisa(WeightAnchor):
    """Squared distance from the last weights of the other state: steps are on safety rows, then on the task."""

    name = "lisa"
    default_weight = 100.0
    bibtex = cleandoc("""
        @inproceedings{huang2024lisa,
          title     = {Lisa: Lazy Safety Alignment for Large Language Models against Harmful Fine-tuning Attack},
          author    = {Huang, Tiansheng and Hu, Sihao and Ilhan, Fatih and Tekin, Selim Furkan and Liu, Ling},
          booktitle = {Advances in Neural Information Processing Systems},
          url       = {https://arxiv.org/abs/2405.18641},
          year      = {2024}
        }
    """)
    reads = (
        WeightAnchor.reads
        | {"lisa_safety_steps", "lisa_task_steps", "replay_max_new_tokens"}
        | {"safety_rows_in_task_format", "safety_task_template"}
    )
    needs_rows = True
    alternates = True
    _taken = 0

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return the size of the anchors, which a fresh adapter has here, too."""
        return [Kept("anchors", sum(p.nbytes for p in outline.trainable.values()))]

    def after_step(self, model: nn.Module) -> None:
        """Anchor the weights where they are when the next step is of the other state."""
        self._taken += 1
        if self.alternation.is_safety(self._taken) != self.alternation.is_safety(self._taken - 1):
            self._space.move_anchors()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the anchors, and how many steps have been taken."""
        return {**super().state_dict(), _TAKEN: torch.tensor(self._taken)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the anchors and the number of steps of a checkpoint."""
        self._taken = int(state[_TAKEN])
        super().load_state_dict({name: tensor for name, tensor in state.items() if name != _TAKEN})
