"""What the trainer checks of each optimizer step: that every term ran, and that every number is finite."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..methods import SafetyMethod
from ..models.finite import NotFinite
from ..models.sharding import whole
from .checkpoints import newest_checkpoint
from .frozen_weights import FrozenWeights


class MissingTerm(RuntimeError):
    """A safety term was not computed, so that training would protect nothing."""


class StepGuard(TrainerCallback):
    """Stops the run before an optimizer step that lacks a term, or that would spoil the weights.

    It reads one number a step, as `Trainer` does with its `logging_nan_inf_filter`.

    Args:
        methods: the trainer's methods; each that has a loss, or projects by one, must show it in every optimizer step.
    """

    def __init__(self, methods: Sequence[SafetyMethod]):
        self._expected = [method.name for method in methods if method.has_loss or method.projects]
        self._losses: dict[str, Tensor] = {}
        self._norm: Tensor | float | None = None
        self._frozen: FrozenWeights | None = None
        self._awaited = self._reached = False

    def prepared(self, model: nn.Module) -> None:
        """Remember which weights were frozen when the methods read the aligned model: these belong to it.

        Args:
            model: the model that they read.
        """
        self._frozen = FrozenWeights(model) if self._expected else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Check that nothing is trained that belongs to the aligned model."""
        if self._frozen is not None and model is not None:
            self._frozen.require_frozen(model)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Check that nothing has changed what belongs to the aligned model."""
        if self._frozen is not None and model is not None:
            self._frozen.require_unchanged(model)

    on_save = on_train_end = on_log

    def saw_loss(self, name: str, value: Tensor) -> None:
        """Keep a micro-step's part of a loss.

        Args:
            name: `task_loss` or a method's name.
            value: scalar, on any device.
        """
        value = value.detach().float()
        self._losses[name] = self._losses[name] + value if name in self._losses else value

    def follow(self, safety_loss: Tensor) -> None:
        """Watch whether the backward pass comes through the safety terms of a micro-step.

        Args:
            safety_loss: their weighted sum, which is about to be added to the task's loss.
        """
        if safety_loss.requires_grad:
            self._awaited = True
            safety_loss.register_hook(self._reach)

    def _reach(self, _: Tensor) -> None:
        self._reached = True

    def saw_norm(self, norm: Tensor | float | None) -> None:
        """Keep the norm of the step's gradient, before it is clipped."""
        self._norm = norm

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget the step before."""
        self._losses, self._norm = {}, None
        self._awaited = self._reached = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Check the step whose gradient is complete.

        Raises:
            MissingTerm: when a term is missing, or its gradient is.
            NotFinite: when a loss or the gradient's norm is not finite.
        """
        step = state.global_step + 1
        missing = [name for name in self._expected if name not in self._losses]
        if missing:
            raise MissingTerm(
                f"The safety term of `{missing[0]}` was not computed in step {step}, so nothing would be protected. "
                "Something stands between `Trainer` and `SafeSFTTrainer.compute_loss`: a `compute_loss` of your own "
                "must call `super().compute_loss(...)`; for a loss of your own, pass `compute_loss_func`."
            )
        if self._awaited and not self._reached:
            raise MissingTerm(
                f"The safety terms were computed in step {step}, and their gradient never reached the weights, so "
                "nothing would be protected. A `compute_loss` of your own must return what "
                "`super().compute_loss(...)` gives it, or a sum with it, and not detach it; for a loss of your own, "
                "pass `compute_loss_func`."
            )
        if self._is_finite():
            return
        names = [name for name, value in self._losses.items() if not torch.isfinite(value).item()]
        what = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}" if names else "the gradient's norm is"
        kept = newest_checkpoint(str(args.output_dir))
        raise NotFinite(
            f"Training stopped in step {step}: {what} not finite. The weights are those of step {step - 1}. Lower "
            "`learning_rate` or `safety_weight`, or look at the data of that step; "
            + (f"the last good checkpoint is {kept}." if kept else "no checkpoint was saved before.")
        )

    def _is_finite(self) -> bool:
        values = [value.reshape(()) for value in self._losses.values()]
        if self._norm is not None:
            norm = whole(self._norm.detach()) if isinstance(self._norm, Tensor) else torch.tensor(self._norm)
            values.append(norm.float().reshape(()))
        device = values[0].device if values else None
        return all(torch.isfinite(torch.stack([value.to(device) for value in values])).tolist())
