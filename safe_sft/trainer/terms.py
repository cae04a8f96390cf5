"""The safety terms of a run: their weighted sum in each micro-step, and the means of both losses for the log."""

from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from ..config.safe_sft_config import SafeSFTConfig
from ..methods import SafetyMethod, StepContext
from .guards import StepGuard
from .step_means import StepMeans


class SafetyTerms:
    """The methods of a run with their weights. Empty, it is plain SFT.

    Args:
        terms: the methods, each with its weight.
    """

    def __init__(self, terms: Sequence[tuple[SafetyMethod, float]] = ()):
        self._terms = tuple(terms)
        self.methods = [method for method, _ in self._terms]
        self._weights = {method.name: weight for method, weight in self._terms}
        self.guard = StepGuard(self.methods)
        self._means = StepMeans()

    @classmethod
    def of(cls, args: SafeSFTConfig) -> "SafetyTerms":
        """Make the methods that `safety_method` names."""
        return cls([(method(), weight) for method, weight in args.safety_terms])

    def __len__(self) -> int:
        return len(self._terms)

    def __iter__(self) -> Iterator[tuple[SafetyMethod, float]]:
        return iter(self._terms)

    def forget(self) -> None:
        """Forget what an earlier training left for the log."""
        self._means = StepMeans()

    def saw_task(self, loss: Tensor, step: StepContext, divisor: int) -> None:
        """Record the task's loss in this micro-step, which `Trainer` will divide by `divisor`."""
        self._means.add("task_loss", loss / divisor, begins_step=step.first_micro_step)
        self.guard.saw_loss("task_loss", loss)

    def loss(self, step: StepContext, device: torch.device) -> Tensor:
        """Return the weighted sum of the terms, normalised over the optimizer step, and record them for the log."""
        values = self._values(step)
        for name, value in values.items():
            self._means.add(f"safety/{name}", value)
            self.guard.saw_loss(name, self._weights[name] * value)
        total = self._sum(values, device)
        self._means.add("safety_loss", total)
        return total

    def loss_to_look_at(self, step: StepContext, device: torch.device) -> Tensor:
        """Return the same sum with a graph of its own from the hidden states on: TRL's kernels allow one backward."""
        return self._sum(self._values(step), device)

    def _values(self, step: StepContext) -> dict[str, Tensor]:
        values = {method.name: method.loss(step) for method in self.methods}
        return {name: value for name, value in values.items() if value is not None}

    def _sum(self, values: dict[str, Tensor], device: torch.device) -> Tensor:
        total = torch.zeros((), device=device)
        for name, value in values.items():
            total = total + self._weights[name] * value.to(device)
        return total

    def logs(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means since the last call, equal on every rank; every rank must call it."""
        return self._means.flush(accelerator)
