"""Repairs a model that fails its gate: a few steps on safety rows, or a merge with the aligned one."""

from .exam import Exam
from .inputs import Inputs
from .lessons import Lessons
from .repair import WAYS, Outcome, Repair
from .training import Training

__all__ = ["WAYS", "Exam", "Inputs", "Lessons", "Outcome", "Repair", "Training"]
