"""Computes what a space takes in memory, from the shapes of its weights alone."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ..models.adapters import active_lora_layers
from ..models.parts import is_peft_model
from .space import space_name


class SpaceSizes(NamedTuple):
    """The amounts that a space keeps in memory.

    Attributes:
        anchors: size of the anchors, in bytes.
        importance: how many numbers of importance there are.
        roots: how many of these are kept a second time, as square roots.
    """

    anchors: int
    importance: int
    roots: int


def space_sizes(
    model: nn.Module, trainable: Mapping[str, Tensor], requested: str | None, *, fresh: bool
) -> SpaceSizes:
    """Compute what the space that `anchor_space` would make keeps.

    Args:
        model: a model on the meta device, with its adapter.
        trainable: the model's trained parameters by name, in the dtype in which they are trained.
        requested: `adapter`, `weight`, or None for the default of `space_name`.
        fresh: whether the adapter is new, so that the space of effective weights needs no anchors.
    """
    everything = sum(parameter.nbytes for parameter in trainable.values())
    if space_name(requested, adapted=is_peft_model(model), fresh=fresh) == "adapter":
        return SpaceSizes(everything, sum(parameter.numel() for parameter in trainable.values()), 0)
    rows_and_columns, factors = 0, set()
    for name, layer in active_lora_layers(model):
        for adapter in layer.active_adapters:
            if adapter in layer.lora_B:
                rows_and_columns += layer.lora_B[adapter].out_features + layer.lora_A[adapter].in_features
                factors |= {f"{name}.lora_{side}.{adapter}.weight" for side in "AB"}
    rest = [parameter for name, parameter in trainable.items() if name not in factors]
    anchors = sum(parameter.nbytes for parameter in rest) if fresh else everything
    return SpaceSizes(anchors, rows_and_columns + sum(parameter.numel() for parameter in rest), rows_and_columns)
