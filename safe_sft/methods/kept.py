"""What a method keeps in memory beside the model, computed from shapes alone, for `safe-sft plan`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Outline:
    """What is known of a run before its weights are loaded.

    Attributes:
        args: the run's `SafeSFTConfig`.
        model: the model on the meta device, with its adapter.
        trainable: the parameters that the optimizer changes, by name, in the dtype in which they are trained.
        fresh: whether the adapter is a new one; False where the model is tuned in full.
    """

    args: Any
    model: nn.Module
    trainable: Mapping[str, Tensor]
    fresh: bool


@dataclass(frozen=True)
class Kept:
    """Tensors that a method keeps from its preparation to the end of the run.

    Attributes:
        name: name of the tensors in the plan's table.
        size: size in bytes.
        where: place where they are kept: `device`, `cpu` or `disk`.
    """

    name: str
    size: int
    where: str = "device"
