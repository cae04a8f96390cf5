"""EWC: stay close to the aligned weights, most where the safety answers depend on them.

Paper: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017,
https://arxiv.org/abs/1612.00796, eq. 3.

    loss = task + safety_weight · Σ Fᵢ (θᵢ − θᵢ*)² / Σ Fᵢ θᵢ*²
    Fᵢ = mean over safety rows of (∂ log p(answer) / ∂θᵢ)²

Departs from the paper in that the penalty is relative to the size of the aligned weights, where the paper has half the
plain sum (`penalty_normalization: none`); that, for LoRA, θ is by default the effective weight `W + s·B·A`, whose F
is read as `ρ κᵀ / Σρ` from its exact row and column sums; and that the answers are by default those of the data
(`empirical`), where the paper draws them from the model (`sampled`).
"""

from inspect import cleandoc
from typing import Any, final

from .importance_anchor import ImportanceAnchor
from .registry import register


@register
@final
class EWC(ImportanceAnchor):
    """Squared distance from the aligned weights, weighted by the Fisher information of the safety answers."""

    name = "ewc"
    default_weight = 100.0
    bibtex = cleandoc("""
        @article{kirkpatrick2017overcoming,
          title   = {Overcoming catastrophic forgetting in neural networks},
          author  = {Kirkpatrick, James and Pascanu, Razvan and Rabinowitz, Neil and Veness, Joel and others},
          journal = {Proceedings of the National Academy of Sciences},
          url     = {https://arxiv.org/abs/1612.00796},
          year    = {2017}
        }
    """)
    reads = ImportanceAnchor.reads | {"importance_estimator"}

    def estimator(self, args: Any) -> str:
        """Return the setting `importance_estimator`: `empirical` or `sampled`."""
        return args.importance_estimator
