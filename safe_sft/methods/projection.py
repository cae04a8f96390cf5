"""The family of methods that turn the gradient of an optimizer step: A-GEM and SafeGrad."""

from typing import ClassVar

from .base import Replay
from .kept import Kept, Outline


class Projection(Replay):
    """A loss on replayed safety rows whose gradient `s` the gradient `g` of the step may not oppose.

        g ← g − min(g·s, 0) / (s·s) · s + safety_weight · s

    `token_losses` gives the loss that `s` is the gradient of. It is not in the loss that is trained on: the trainer
    runs the step's replayed rows through a forward and a backward of their own, at the end of each optimizer step.
    """

    projects: ClassVar[bool] = True

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return the size of `s`, which stands beside `g` at the end of each optimizer step."""
        return [Kept("gradient of the safety rows", sum(p.nbytes for p in outline.trainable.values()))]
