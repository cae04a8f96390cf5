"""EMA: ship the running average of the weights, not their last values.

Paper: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
https://doi.org/10.1137/0330046; for safety, arXiv 2512.10150.

    average ← d · average + (1 − d) · weights,    after each optimizer step

It adds nothing to the loss. Departs from the paper in the decay d, which replaces the plain mean: the average starts
at the aligned weights and keeps d to the power of the steps of them, unless `ema_warmup` lets it forget them.
"""

from contextlib import AbstractContextManager
from inspect import cleandoc
from typing import final

from torch import Tensor, nn

from .base import Preparation, SafetyMethod, StepContext
from .kept import Kept, Outline
from .registry import register
from .weight_average import WeightAverage


@register
@final
class EMA(SafetyMethod):
    """The running average of the weights is what is saved and measured."""

    name = "ema"
    default_weight = 0.0
    bibtex = cleandoc("""
        @article{polyak1992acceleration,
          title   = {Acceleration of Stochastic Approximation by Averaging},
          author  = {Polyak, B. T. and Juditsky, A. B.},
          journal = {SIAM Journal on Control and Optimization},
          url     = {https://doi.org/10.1137/0330046},
          year    = {1992}
        }
    """)
    reads = frozenset({"ema_decay", "ema_warmup", "ema_on_cpu", "ema_evaluate"})
    has_loss = False
    _average: WeightAverage

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return the size of the average, in float32."""
        size = sum(4 * parameter.numel() for parameter in outline.trainable.values())
        return [Kept("average of the weights (ema)", size, where="cpu" if outline.args.ema_on_cpu else "device")]

    def prepare(self, setup: Preparation) -> None:
        """Start the average at the aligned model."""
        args = setup.args
        device = "cpu" if args.ema_on_cpu else None
        self._average = WeightAverage(_trainable(setup.model), args.ema_decay, warmup=args.ema_warmup, device=device)

    def loss(self, step: StepContext) -> Tensor | None:
        """Return None: the average adds nothing to the loss."""
        return None

    def after_step(self, model: nn.Module) -> None:
        """Take the new weights into the average."""
        self._average.update(_trainable(model))

    def deployed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Put the average in place of the trained weights inside this context."""
        return self._average.swapped(_trainable(model))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average, for a checkpoint."""
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the average of a checkpoint."""
        self._average.load_state_dict(state)


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
