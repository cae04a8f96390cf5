"""CSFT: learn the task, and hold the first tokens of its answers to what the aligned model would have said.

Paper: Qi et al., "Safety Alignment Should Be Made More Than Just a Few Tokens Deep", ICLR 2025,
https://arxiv.org/abs/2406.05946, eq. 3 and 4.

    loss = mean over supervised task tokens of  w · (−log p(y)),   w = max(1e-3, 2·(1 − σ(β·(log p(y) − log p₀(y)))))

β is 0.5 for the first token of an answer, 2 for the next four, and 0.1 for the rest; w has no gradient. The term is
what this adds to the task's own loss, the mean of (w − 1)·(−log p(y)), so that TRL's loss stays as it is.

Departs from the paper in that the mean is taken over the tokens of the whole optimizer step, as TRL's loss is. The
paper writes the loss as −(2/β)·log σ(β·(log p(y) − log p₀(y))), which has the same gradient, but for the least weight.
"""

from inspect import cleandoc
from typing import final

import torch
from torch import Tensor

from ..losses import constrained_weights, token_cross_entropy
from .base import Distillation, Preparation, TokenStates
from .registry import register

#: The paper's β of the first, second, … token of an answer; the last one is that of all further tokens.
BETAS = (0.5, 2.0, 2.0, 2.0, 2.0, 0.1)


@register
@final
class CSFT(Distillation):
    """Less weight on answer tokens that have become likelier than under the aligned model, the first above all."""

    name = "csft"
    default_weight = 1.0
    bibtex = cleandoc("""
        @inproceedings{qi2025safety,
          title     = {Safety Alignment Should Be Made More Than Just a Few Tokens Deep},
          author    = {Qi, Xiangyu and Panda, Ashwinee and Lyu, Kaifeng and Ma, Xiao and Roy, Subhrajit and
                       Beirami, Ahmad and Mittal, Prateek and Henderson, Peter},
          booktitle = {International Conference on Learning Representations},
          url       = {https://arxiv.org/abs/2406.05946},
          year      = {2025}
        }
    """)
    reads = frozenset({"csft_betas", "teacher"})
    keeps_task_losses = True
    largest_weight = 1.0
    reweights_task = True
    _betas: Tensor

    def prepare(self, setup: Preparation) -> None:
        """Read how tightly each token of an answer is held."""
        self._betas = torch.tensor(setup.args.csft_betas or BETAS)

    def token_losses(self, task: TokenStates) -> Tensor:
        """Return `(w − 1) · (−log p(y))` of each token, in nats."""
        assert task.places is not None, "task rows say where in its answer each token is"
        head, aligned_head = task.heads()
        with task.autocast():
            losses = token_cross_entropy(task.hidden, head, task.targets)
            aligned = task.aligned_losses
            if aligned is None:
                with torch.no_grad():
                    aligned = token_cross_entropy(task.teacher_hidden(), aligned_head, task.targets)
        self._betas = self._betas.to(task.places.device)
        betas = self._betas[task.places.clamp_max(len(self._betas) - 1)]
        return (constrained_weights(aligned - losses, betas) - 1) * losses
