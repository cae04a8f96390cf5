"""Merges of the tuned model with the aligned one, and the running average."""

from ..methods.weight_average import WeightAverage
from .functions import linear, slerp, task_arithmetic
from .magmax import magmax
from .merge import merge
from .methods import MERGE_METHODS
from .weights import MergeWeights

__all__ = ["MERGE_METHODS", "MergeWeights", "WeightAverage", "linear", "magmax", "merge", "slerp", "task_arithmetic"]
