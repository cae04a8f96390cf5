"""Whether a request reads as a safety request or as a harmless one, in the aligned model's own states."""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Share of the covariance that is replaced by one without directions: there may be fewer requests than dimensions.
_SHRINKAGE = 0.5
#: No request counts as more than so many times as close as the median of the safety requests.
_FARTHEST = 2.0


class Closeness:
    """A linear reading of states: Fisher's discriminant of safety requests and harmless ones.

    1 is the median of the safety requests, -1 that of the harmless ones. Two readings are fitted, each to one half of
    the requests, and scaled by the other, so that none looks better than it is; what is read is their mean.

    Args:
        harmful: state of each safety request, `(requests, d)`, at least 4.
        harmless: state of each harmless request, `(requests, d)`, at least 4.
    """

    def __init__(self, harmful: Tensor, harmless: Tensor):
        sides = (harmful.double(), harmless.double())
        self._readings = [_Reading.fitted(*(side[1 - half :: 2] for side in sides)) for half in (0, 1)]
        read = [torch.zeros(len(side), dtype=torch.float64) for side in sides]
        for half, reading in enumerate(self._readings):
            reading.scale(*(side[half::2] for side in sides))
            for values, side in zip(read, sides, strict=True):
                values[half::2] = reading.of(side[half::2])
        #: The reading of each safety request and of each harmless one, by what the other half says.
        self.harmful, self.harmless = (_cut(values) for values in read)

    def of(self, states: Tensor) -> list[float]:
        """Return the reading of each request, from -2 to 2; 0 for all where states do not tell the two apart.

        Args:
            states: state of each request, `(requests, d)`.
        """
        return _cut(torch.stack([reading.of(states.double()) for reading in self._readings]).mean(0))


@dataclass
class _Reading:
    """A direction, and what the medians of requests that it was not fitted to are along it.

    Attributes:
        weight: the direction, `(d,)`.
        middle: what lies between the two medians.
        half: half of their distance; 0 or less where the direction tells nothing.
    """

    weight: Tensor
    middle: float = 0.0
    half: float = 0.0

    @classmethod
    def fitted(cls, harmful: Tensor, harmless: Tensor) -> "_Reading":
        """Fit the direction to some of the requests."""
        return cls(_direction(harmful, harmless))

    def scale(self, harmful: Tensor, harmless: Tensor) -> None:
        """Take the medians of the others."""
        high, low = ((side @ self.weight).median().item() for side in (harmful, harmless))
        self.middle, self.half = (high + low) / 2, (high - low) / 2

    def of(self, states: Tensor) -> Tensor:
        """Read states."""
        if self.half <= 0:
            return torch.zeros(len(states), dtype=torch.float64)
        return (states @ self.weight - self.middle) / self.half


def _cut(values: Tensor) -> list[float]:
    return values.clamp(-_FARTHEST, _FARTHEST).tolist()


def _direction(harmful: Tensor, harmless: Tensor) -> Tensor:
    """Return the direction `(d,)` that tells the two apart, for the covariance that both have within."""
    means = harmful.mean(0), harmless.mean(0)
    within = torch.cat([harmful - means[0], harmless - means[1]])
    covariance = within.T @ within / len(within)
    round_ = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    return torch.linalg.solve((1 - _SHRINKAGE) * covariance + _SHRINKAGE * round_, means[0] - means[1])
