"""The space of effective weights: `W + s·B·A` of every LoRA layer."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..losses import low_rank_squared_norm
from ..losses.precision import wide
from ..losses.weights import weighted_square_sum
from ..models.adapters import base_weight
from ..models.sharding import reshard, settle_whole, whole
from .parameter_space import ParameterSpace
from .space import AnchoredSpace, Layout, Slot, load_anchors, require_layout


class FactorPair(NamedTuple):
    """The factors of one adapter in one LoRA layer: `ΔW = scaling · B · A`."""

    name: str
    layer: Any
    adapter: str

    @property
    def a(self) -> Slot:
        """The factor `A (r, d_in)`."""
        return Slot(self.layer.lora_A[self.adapter], "weight")

    @property
    def b(self) -> Slot:
        """The factor `B (d_out, r)`."""
        return Slot(self.layer.lora_B[self.adapter], "weight")

    @property
    def scaling(self) -> float:
        """The factor `s` on the product `B · A`."""
        return self.layer.scaling[self.adapter]


class EffectiveWeightSpace(AnchoredSpace):
    """`W + s·B·A` of every LoRA layer, and the parameters that are trained in full beside them.

    The movement `s(BA − B*A*) = s(B(A − A*) + (B − B*)A*)` has rank `2r`, so its norm needs no dense matrix. It is
    written as differences, which are exactly 0 at the anchor and lose no digits near it. With `B* = 0` (a fresh
    adapter) it is `s·B·A`, and no anchor is stored.

    The importance of `W` is kept as its row sums `ρ (d_out,)` and column sums `κ (d_in,)`, and read as
    `Ω = ρ κᵀ / Σρ`. The weighted norm is then the plain norm with rows scaled by `√ρ` and columns by `√(κ / Σρ)`.

    Under FSDP2 the factors, which are small, are gathered; every rank computes the whole penalty.

    Args:
        pairs: the LoRA layers.
        rest: trainable parameters that are not LoRA factors, by name.
        model: the model that holds them.
    """

    name = "weight"

    def __init__(self, pairs: list[FactorPair], rest: dict[str, Slot], model: nn.Module):
        self.pairs = pairs
        self.rest = ParameterSpace(rest, model) if rest else None
        self._model = model
        self._anchors: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._roots: dict[str, Tensor] = {}
        self._shared: set[str] = set()
        for pair in pairs:
            if torch.count_nonzero(pair.b.parameter):
                self._anchors[f"{pair.name}.lora_A"] = pair.a.parameter.detach().clone()
                self._anchors[f"{pair.name}.lora_B"] = pair.b.parameter.detach().clone()

    def penalty(self) -> Tensor:
        """Return `½ Σ ‖√Ω ∘ (ΔW − ΔW*)‖²`, computed for all layers of one shape at a time."""
        reshard(self._model)
        by_shape: dict[tuple, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for pair in self.pairs:
            left, right = self._movement(pair)
            by_shape[left.shape, right.shape, left.device].append((left, right))
        norms = [
            low_rank_squared_norm(
                torch.stack([left for left, _ in group]), torch.stack([right for _, right in group])
            ).sum()
            for group in by_shape.values()
        ]
        total = torch.stack([norm.to(norms[0].device) for norm in norms]).sum() / 2
        return total if self.rest is None else total + self.rest.penalty().to(total.device)

    @torch.no_grad()
    def size(self) -> float:
        """Return `Σ ‖√Ω ∘ W*‖²`, layer by layer; weights that are quantised are read one layer at a time."""
        total = 0.0 if self.rest is None else self.rest.size()
        for pair in self.pairs:
            weight = wide(base_weight(pair.layer, pair.name))
            if f"{pair.name}.lora_A" in self._anchors:
                b, a = (self._anchors[f"{pair.name}.lora_{side}"].to(weight) for side in "BA")
                weight = weight + pair.scaling * (b @ a)
            if self._roots:
                weight = weight * self._roots[f"{pair.name}.rows"].to(weight)[:, None]
                weight = weight * self._roots[f"{pair.name}.columns"].to(weight)
            total += weighted_square_sum(weight)
        return total

    def _movement(self, pair: FactorPair) -> tuple[Tensor, Tensor]:
        a, b = wide(whole(pair.a.parameter)), wide(whole(pair.b.parameter))
        if f"{pair.name}.lora_A" not in self._anchors:
            left, right = b * pair.scaling, a
        else:
            a0 = self._settled(self._anchors, f"{pair.name}.lora_A", pair.a).to(a.dtype)
            b0 = self._settled(self._anchors, f"{pair.name}.lora_B", pair.b).to(b.dtype)
            left, right = torch.cat([b, b - b0], dim=1) * pair.scaling, torch.cat([a - a0, a0])
        if not self._roots:
            return left, right
        rows = self._settled(self._roots, f"{pair.name}.rows", pair.b)
        columns = self._settled(self._roots, f"{pair.name}.columns", pair.a)
        return left * rows[:, None], right * columns

    def _settled(self, tensors: dict[str, Tensor], name: str, slot: Slot) -> Tensor:
        parameter = slot.parameter
        if tensors[name].device != parameter.device or (isinstance(parameter, DTensor) and name not in self._shared):
            tensors[name] = settle_whole(tensors[name], parameter)
            self._shared.add(name)
        return tensors[name]

    def layout(self) -> dict[str, Layout]:
        """Return the layout: `rows (d_out,)` and `columns (d_in,)` of each LoRA layer, and the other parameters."""
        layout = {} if self.rest is None else self.rest.layout()
        for pair in self.pairs:
            a, b = pair.a.parameter, pair.b.parameter
            layout[f"{pair.name}.rows"] = Layout((b.size(0),), b.device)
            layout[f"{pair.name}.columns"] = Layout((a.size(1),), a.device)
        return layout

    def anchors(self) -> dict[str, Tensor]:
        """Return the anchors by parameter name."""
        return {**self._anchors, **(self.rest.anchors() if self.rest else {})}

    def move_anchors(self) -> None:
        """Anchor the factors, and the other parameters, at their present values."""
        for pair in self.pairs:
            for side, slot in (("A", pair.a), ("B", pair.b)):
                self._anchors[f"{pair.name}.lora_{side}"] = whole(slot.parameter.detach()).clone()
        self._shared.clear()
        if self.rest:
            self.rest.move_anchors()

    def weigh(self, importance: Mapping[str, Tensor]) -> None:
        """Take row and column sums for each LoRA layer, and one number for each weight of the other parameters."""
        require_layout(self.layout(), importance)
        for pair in self.pairs:
            rows, columns = f"{pair.name}.rows", f"{pair.name}.columns"
            self._sums[rows], self._sums[columns] = importance[rows], importance[columns]
            total = importance[rows].sum().clamp_min(torch.finfo(importance[rows].dtype).tiny)
            device = pair.b.parameter.device
            self._roots[rows] = importance[rows].sqrt().to(device)
            self._roots[columns] = (importance[columns] / total).sqrt().to(device)
        if self.rest:
            self.rest.weigh({name: importance[name] for name in self.rest.slots})

    def importance(self) -> dict[str, Tensor]:
        """Return row and column sums for each LoRA layer, and one number for each weight of the other parameters."""
        return {**self._sums, **(self.rest.importance() if self.rest else {})}

    def _load_anchors(self, state: Mapping[str, Tensor]) -> None:
        for pair in self.pairs:
            for side, slot in (("A", pair.a), ("B", pair.b)):
                name = f"{pair.name}.lora_{side}"
                if name in state and name not in self._anchors:  # they were moved while training
                    self._anchors[name] = whole(slot.parameter.detach()).clone()
        mine = {key: value for key, value in state.items() if key in self._anchors}
        load_anchors(self._anchors, mine)
        if self.rest:
            self.rest._load_anchors({key: value for key, value in state.items() if key not in mine})
