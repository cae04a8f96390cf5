"""The safety methods, by name. A new method is a file in this folder, and a line in this file."""

from .base import (
    Distillation,
    Preparation,
    Replay,
    SafetyMethod,
    StepContext,
    TokenStates,
    WeightAnchor,
)
from .importance_anchor import ImportanceAnchor
from .projection import Projection
from .registry import ALIASES, METHODS, method_classes, method_weights, register

# Each file registers its method; help and tables show them in this order.
# isort: off
from .der import DER as DER
from .er import ER as ER
from .l2 import L2 as L2
from .ewc import EWC as EWC
from .mas import MAS as MAS
from .lwf import LwF as LwF
from .csft import CSFT as CSFT
from .lisa import Lisa as Lisa
from .agem import AGEM as AGEM
from .safegrad import SafeGrad as SafeGrad
from .ema import EMA as EMA
# isort: on

__all__ = [
    "ALIASES",
    "METHODS",
    "Distillation",
    "ImportanceAnchor",
    "Preparation",
    "Projection",
    "Replay",
    "SafetyMethod",
    "StepContext",
    "TokenStates",
    "WeightAnchor",
    "method_classes",
    "method_weights",
    "register",
    *(method.__name__ for method in METHODS.values()),
]
