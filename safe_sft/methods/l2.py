"""L2: stay close to the aligned weights.

Paper: Xuhong et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018,
https://arxiv.org/abs/1802.01483, eq. 3 (L2-SP).

    loss = task + safety_weight · ‖θ − θ*‖² / ‖θ*‖²

Departs from the paper in that the distance is a share of the aligned weights' own size, where the paper has half of
`‖θ − θ*‖²` (`penalty_normalization: none`); and that, for LoRA, θ is by default the effective weight `W + s·B·A`
rather than its factors.
"""

from inspect import cleandoc
from typing import final

from .base import WeightAnchor
from .registry import register


@register
@final
class L2(WeightAnchor):
    """Squared distance from the aligned weights."""

    name = "l2"
    default_weight = 100.0
    bibtex = cleandoc("""
        @inproceedings{li2018explicit,
          title     = {Explicit Inductive Bias for Transfer Learning with Convolutional Networks},
          author    = {Li, Xuhong and Grandvalet, Yves and Davoine, Franck},
          booktitle = {International Conference on Machine Learning},
          url       = {https://arxiv.org/abs/1802.01483},
          year      = {2018}
        }
    """)
