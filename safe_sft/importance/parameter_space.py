"""The space of the trainable parameters themselves."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..losses import quadratic_penalty
from ..losses.weights import weighted_square_sum
from ..models.sharding import local, reshard, settle, sum_over_shards, whole
from .space import AnchoredSpace, Layout, Slot, load_anchors, require_layout


class ParameterSpace(AnchoredSpace):
    """The trainable parameters themselves.

    Args:
        slots: the parameters, by name.
        model: the model that holds them.
    """

    name = "adapter"

    def __init__(self, slots: dict[str, Slot], model: nn.Module):
        self.slots = slots
        self._model = model
        self._anchors: dict[str, Tensor] = {}
        self.move_anchors()
        self._importance: dict[str, Tensor] = {}

    def penalty(self) -> Tensor:
        """Return `½ Σ ω (θ − θ*)²`; under FSDP2 each rank computes the part of its shards."""
        reshard(self._model)
        groups: dict[Any, list[str]] = defaultdict(list)
        parameters = {name: slot.parameter for name, slot in self.slots.items()}
        for name, parameter in parameters.items():
            self._anchors[name] = settle(self._anchors[name], parameter)
            if self._importance:
                self._importance[name] = settle(self._importance[name], parameter)
            key = (parameter.device_mesh, parameter.placements) if isinstance(parameter, DTensor) else None
            groups[key].append(name)
        parts = [self._group_penalty(parameters, group) for group in groups.values()]
        return torch.stack([part.to(parts[0].device) for part in parts]).sum()

    def _group_penalty(self, parameters: dict[str, Tensor], names: list[str]) -> Tensor:
        part = quadratic_penalty(
            [local(parameters[name]) for name in names],
            [local(self._anchors[name]) for name in names],
            [local(self._importance[name]) for name in names] if self._importance else None,
        )
        first = parameters[names[0]]
        return sum_over_shards(part, first) if isinstance(first, DTensor) else part

    def size(self) -> float:
        """Return `Σ ω θ*²`."""
        anchors, importance = self.anchors(), self.importance()
        return sum(weighted_square_sum(anchor, importance.get(name)) for name, anchor in anchors.items())

    def layout(self) -> dict[str, Layout]:
        """Return the shape and device of every parameter, by name."""
        parameters = {name: slot.parameter for name, slot in self.slots.items()}
        return {name: Layout(tuple(p.shape), p.device) for name, p in parameters.items()}

    def anchors(self) -> dict[str, Tensor]:
        """Return the anchor of every parameter, by name."""
        return {name: whole(anchor) for name, anchor in self._anchors.items()}

    def move_anchors(self) -> None:
        """Anchor the parameters at their present values."""
        self._anchors = {name: slot.parameter.detach().clone() for name, slot in self.slots.items()}

    def weigh(self, importance: Mapping[str, Tensor]) -> None:
        """Take one number of importance for each weight."""
        require_layout(self.layout(), importance)
        self._importance = {name: value.to(self.slots[name].parameter.device) for name, value in importance.items()}

    def importance(self) -> dict[str, Tensor]:
        """Return one number of importance for each weight; empty before `weigh`."""
        return {name: whole(value) for name, value in self._importance.items()}

    def _load_anchors(self, state: Mapping[str, Tensor]) -> None:
        load_anchors(self._anchors, state)
