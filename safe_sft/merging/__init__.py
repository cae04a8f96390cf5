"""Merges of the tuned model with the aligned one (linear, SLERP, task arithmetic), and the running average."""

from ..methods.weight_average import WeightAverage
from .functions import MERGE_METHODS, linear, slerp, task_arithmetic
from .merge import merge
from .weights import MergeWeights

__all__ = ["MERGE_METHODS", "MergeWeights", "WeightAverage", "linear", "merge", "slerp", "task_arithmetic"]
