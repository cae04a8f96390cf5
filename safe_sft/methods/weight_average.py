"""The exponential moving average of the weights, kept while they are trained.

    average ← d·average + (1 − d)·trained,    d = min(decay, (1 + n) / (10 + n))  at update n = 0, 1, …

The warm-up lets the average leave the starting weights in the first updates; it is that of TensorFlow's
`ExponentialMovingAverage` (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ..models.sharding import settle, whole

_UPDATES = "updates"


class WeightAverage:
    """The running average of named tensors, in float32 (float64 for float64).

    All operations are elementwise, so tensors sharded as `DTensor` are averaged shard by shard, without communication.

    Args:
        parameters: the tensors by name; the average starts at their present values.
        decay: share of the average that an update keeps, in [0, 1).
        warmup: whether early updates keep less of the average.
        device: device on which the average is kept; by default that of the parameters.

    Raises:
        ValueError: when `decay` is out of range.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        decay: float,
        *,
        warmup: bool = True,
        device: torch.device | str | None = None,
    ):
        if not 0 <= decay < 1:
            raise ValueError(f"An EMA decay of {decay} is out of range. Choose one in [0, 1), such as 0.999.")
        self.decay = decay
        self.updates = 0
        self._warmup = warmup
        self._follows = device is None
        self._averages = {
            name: p.detach().to(device or p.device, torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in parameters.items()
        }

    @property
    def averages(self) -> Mapping[str, Tensor]:
        """The average of each tensor, by name."""
        return self._averages

    @property
    def current_decay(self) -> float:
        """The factor by which the next update multiplies the average."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates)) if self._warmup else self.decay

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Include the trained values in the average, once per optimizer step.

        Args:
            parameters: the tensors that the average was made of, by name.

        Raises:
            ValueError: when the names differ.
        """
        self._check(parameters.keys())
        # Under FSDP2 the parameters are sharded after the average was made: shard it alike.
        self._averages = {name: self._placed(a, parameters[name]) for name, a in self._averages.items()}
        averages = list(self._averages.values())
        values = [parameters[name].detach().to(a.device) for name, a in self._averages.items()]
        decay = self.current_decay
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, values, alpha=1 - decay)
        self.updates += 1

    @contextmanager
    def swapped(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Put the averages into the parameters inside this context; the trained values come back bit for bit.

        Args:
            parameters: the tensors that the average was made of, by name.

        Raises:
            ValueError: when the names differ.
        """
        self._check(parameters.keys())
        trained = {name: p.detach().clone() for name, p in parameters.items()}
        try:
            self.copy_to(parameters)
            yield
        finally:
            _copy(trained, parameters)

    def copy_to(self, parameters: Mapping[str, Tensor]) -> None:
        """Overwrite `parameters` with the averages, in their dtype."""
        self._check(parameters.keys())
        _copy(self._averages, parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run needs: the whole averages, and the number of updates, for the warm-up.

        Under FSDP2 every rank must call it.
        """
        return {**{name: whole(a) for name, a in self._averages.items()}, _UPDATES: torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the state that `state_dict` returned.

        Raises:
            ValueError: when the names differ.
        """
        self._check(state.keys() - {_UPDATES})
        _copy(state, self._averages)
        self.updates = int(state[_UPDATES])

    def _placed(self, average: Tensor, parameter: Tensor) -> Tensor:
        return settle(average, parameter) if self._follows else average

    def _check(self, names: Iterable[str]) -> None:
        differing = sorted(self._averages.keys() ^ set(names))
        if differing:
            raise ValueError(
                f"The average was made of other tensors: {len(differing)} names differ, such as '{differing[0]}'. "
                "Pass the parameters, under the names, that `WeightAverage` was given."
            )


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(settle(source[name], tensor))
