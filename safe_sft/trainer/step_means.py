"""Means over optimizer steps of quantities that arrive in parts, without synchronising at each step."""

import torch
from accelerate import Accelerator
from torch import Tensor


class StepMeans:
    """Sums parts on their device; `flush` returns the mean over all ranks and over the steps since the last flush."""

    def __init__(self) -> None:
        self._steps = 0
        self._begun: dict[str, int] = {}
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, part: Tensor, begins_step: bool = False) -> None:
        """Add a part of the step's value, a scalar; the flag says whether a new step begins with it.

        What begins steps is a mean over the steps that began with it, and all else over all steps.
        """
        self._steps += begins_step
        if begins_step:
            self._begun[name] = self._begun.get(name, 0) + 1
        part = part.detach().float()
        self._sums[name] = self._sums[name] + part if name in self._sums else part

    def flush(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means, equal on every rank; every rank must call it."""
        if not self._steps:
            return {}
        counts = (self._begun.get(name, self._steps) for name in self._sums)
        parts = zip(self._sums.values(), counts, strict=True)
        stacked = torch.stack([value.to(accelerator.device) / count for value, count in parts])
        means = dict(zip(self._sums, accelerator.reduce(stacked, "mean").tolist(), strict=True))
        self._steps, self._sums, self._begun = 0, {}, {}
        return means
