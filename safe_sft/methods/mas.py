"""MAS: stay close to the aligned weights, most where the logits on the safety rows depend on them.

Paper: Aljundi et al., "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018,
https://arxiv.org/abs/1711.09601, eq. 3 and 4.

    loss = task + safety_weight · Σ Ωᵢ (θᵢ − θᵢ*)² / Σ Ωᵢ θᵢ*²,   Ωᵢ = mean over safety rows of |∂ mean ‖z‖² / ∂θᵢ|

with the inner mean over the positions that predict the answer; the answers' tokens themselves are not used. A row is
what the paper calls a data point: the absolute value is taken of its gradient, and before the mean over rows.

Departs from the paper in that the penalty is relative to the size of the aligned weights, where the paper has the
plain sum (`penalty_normalization: none`); that, for LoRA, θ is by default the effective weight `W + s·B·A`, whose Ω is
read as `ρ κᵀ / Σρ` from its exact row and column sums; and that no logits are built: `‖z‖² = hᵀ WᵀW h`.
"""

from inspect import cleandoc
from typing import Any, final

from .importance_anchor import ImportanceAnchor
from .registry import register


@register
@final
class MAS(ImportanceAnchor):
    """Squared distance from the aligned weights, weighted by how much the logits on the safety rows depend on each."""

    name = "mas"
    default_weight = 100.0
    bibtex = cleandoc("""
        @inproceedings{aljundi2018memory,
          title     = {Memory Aware Synapses: Learning what (not) to forget},
          author    = {Aljundi, Rahaf and Babiloni, Francesca and Elhoseiny, Mohamed and Rohrbach, Marcus and
                       Tuytelaars, Tinne},
          booktitle = {European Conference on Computer Vision},
          url       = {https://arxiv.org/abs/1711.09601},
          year      = {2018}
        }
    """)

    def estimator(self, args: Any) -> str:
        """Return `mas`, the only estimator of this method."""
        return "mas"
