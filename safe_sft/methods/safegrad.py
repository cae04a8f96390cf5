"""SafeGrad: learn the task, but not against the aligned model's answers to safety rows, which are learned as well.

Paper: Yi et al., "Gradient Surgery for Safe LLM Fine-Tuning", 2025, https://arxiv.org/abs/2508.07172.

    g ← g − min(g·s, 0) / (s·s) · s + safety_weight · s

g is the gradient of the loss, s that of  mean over replayed tokens of KL(p₀ ‖ p), both of the whole optimizer step.

Departs from the paper in that only the beginnings of safety answers are replayed, and in that other distances than the
KL divergence may be chosen (`teacher_divergence`).
"""

from inspect import cleandoc
from typing import final

from .projection import Projection
from .registry import register
from .teacher_distance import ByTeacherDistance


@register
@final
class SafeGrad(ByTeacherDistance, Projection):
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
