"""Which per-sequence gradients come from batches, and which from one sequence at a time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .parameter_space import ParameterSpace
from .space import AnchoredSpace, Slot
from .weight_space import EffectiveWeightSpace, FactorPair


@dataclass
class Batching:
    """Which gradients are taken in batches, by hooks, and which one sequence at a time.

    Attributes:
        pairs: LoRA layers whose importance is kept as row and column sums.
        linear: linear layers with a trained weight or bias, with the names of these parameters.
        rest: every other trained parameter.
        batched: whether several sequences go through the model together.
    """

    pairs: list[FactorPair] = field(default_factory=list)
    linear: dict[nn.Module, dict[str, str]] = field(default_factory=dict)
    rest: dict[str, Slot] = field(default_factory=dict)
    batched: bool = True

    @classmethod
    def of(cls, space: AnchoredSpace, model: nn.Module) -> "Batching":
        """Sort the weights of `space` by the modules that hold them."""
        batching = cls()
        parameters: ParameterSpace | None = space if isinstance(space, ParameterSpace) else None
        if isinstance(space, EffectiveWeightSpace):
            batching.pairs, parameters = space.pairs, space.rest
        uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
        for name, slot in parameters.slots.items() if parameters else ():
            if type(slot.module).forward is nn.Linear.forward and uses[id(slot.parameter)] == 1:
                batching.linear.setdefault(slot.module, {})[slot.leaf] = name
            else:
                batching.rest[name] = slot
        return batching

    def exclude_irregular(self, model: nn.Module, forward: Callable[[], Any]) -> None:
        """Run `forward` on two rows, and move layers that do not see each row exactly once and apart to `rest`.

        Raises:
            ValueError: for a LoRA layer that a forward runs through more than once.
        """
        modules = {pair.layer for pair in self.pairs} | set(self.linear)
        calls: Counter[nn.Module] = Counter()
        apart: set[nn.Module] = set()

        def note(module: nn.Module, args: tuple[Tensor, ...], _: Any) -> None:
            calls[module] += 1
            if args[0].dim() > 2 and args[0].size(0) == 2:
                apart.add(module)

        handles = [module.register_forward_hook(note) for module in modules]
        with torch.no_grad():
            forward()
        for handle in handles:
            handle.remove()
        for pair in self.pairs:
            if calls[pair.layer] > 1:
                raise ValueError(
                    f"The layer '{pair.name}' runs {calls[pair.layer]} times in one forward, so the row and column "
                    "sums of its gradient are not at hand. Set `importance_space: adapter`."
                )
        for module in [m for m in self.linear if calls[m] != 1 or m not in apart]:
            self.rest.update({name: Slot(module, leaf) for leaf, name in self.linear.pop(module).items()})
        self.batched = not self.rest and all(pair.layer in apart for pair in self.pairs)
