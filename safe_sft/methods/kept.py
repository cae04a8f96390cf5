"""What a method keeps beside the model, told from shapes alone: what `safe-sft plan` asks a method's class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Outline:
    """A run before its weights are loaded.

    Attributes:
        args: the `SafeSFTConfig` of the run.
        model: the model on the meta device, with its adapter.
        trainable: what the optimizer changes, by name, in the dtype in which it is trained.
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
        name: what they are, for the plan's table.
        size: bytes.
        where: `device`, `cpu` or `disk`.
    """

    name: str
    size: int
    where: str = "device"
