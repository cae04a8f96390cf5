"""The safety methods, by name. A new one is a file here and a line in `METHODS`."""

from .base import (
    Distillation,
    ImportanceAnchor,
    Preparation,
    Replay,
    SafetyMethod,
    StepContext,
    TokenStates,
    WeightAnchor,
)
from .der import DER
from .ema import EMA
from .er import ER
from .ewc import EWC
from .l2 import L2
from .lwf import LwF
from .mas import MAS
from .registry import ALIASES, METHODS, method_classes, method_weights

__all__ = [
    "ALIASES",
    "DER",
    "EMA",
    "ER",
    "EWC",
    "L2",
    "MAS",
    "METHODS",
    "Distillation",
    "ImportanceAnchor",
    "LwF",
    "Preparation",
    "Replay",
    "SafetyMethod",
    "StepContext",
    "TokenStates",
    "WeightAnchor",
    "method_classes",
    "method_weights",
]
