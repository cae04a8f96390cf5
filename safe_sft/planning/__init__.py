"""Predicts what a run will need, from its configuration alone: no weights are loaded."""

from .data import Rows, assumed_rows, assumed_safety_rows, count_safety_rows, count_task_rows
from .gpus import GPUS, UTILIZATION, find_gpus
from .plan import Plan, make_plan
from .report import print_plan

__all__ = [
    "GPUS",
    "UTILIZATION",
    "Plan",
    "Rows",
    "assumed_rows",
    "assumed_safety_rows",
    "count_safety_rows",
    "count_task_rows",
    "find_gpus",
    "make_plan",
    "print_plan",
]
