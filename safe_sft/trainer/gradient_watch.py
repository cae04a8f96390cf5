"""Watches who shapes the gradient: the part of it that the safety terms make, and how often clipping cut it."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..models.sharding import whole

logger = get_logger(__name__)

#: The share is measured in one step of so many, which costs a forward and a backward pass of the replayed rows (of the
#: task's for `lwf`) more: two to three per cent of the time at most.
EVERY = 25
#: The first step that is measured: the distances to the aligned model are 0 before the model has moved.
FIRST = 4
#: Most numbers of the gradient that are compared, evenly spread over the parameters (256 MiB in float32).
MOST_NUMBERS = 2**26
#: Shares that are said to be too large or too small, with what to change.
STARVING, NEGLIGIBLE = 0.95, 0.01


class GradientWatch(TrainerCallback):
    """Measures `safety/share`, `‖g_safety‖ / (‖g_safety‖ + ‖g_task‖)` of whole optimizer steps, and `safety/clipped`.

    The share is taken of a graph of its own: kernels that overwrite what they have saved (Liger's, TRL's) allow one
    backward pass alone. It is not measured where gradients are in pieces (FSDP, DeepSpeed), scaled (fp16), or of
    layers that are checkpointed with `use_reentrant` or offload their activations, nor where a method projects the
    gradient, which then is no sum. Reading it changes no gradient.

    Args:
        accelerator: the trainer's accelerator.
        max_norm: the norm to which `Trainer` clips the gradient; 0 for none.
        measures: whether layers allow a backward pass beside that of training.
    """

    def __init__(self, accelerator: Accelerator, max_norm: float, measures: bool = True):
        in_pieces = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        self._measures = measures and not in_pieces and accelerator.scaler is None
        self._accelerator, self._max_norm = accelerator, max_norm
        self._forget()

    def _forget(self) -> None:
        #: Whether this optimizer step is measured.
        self.is_due = False
        self._sums: list[Tensor] | None = None
        self._norm: Tensor | float | None = None
        self._share: Tensor | None = None
        self._shares: list[float] = []
        self._cut: list[Tensor] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget an earlier training."""
        self._forget()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Decide whether this step is measured."""
        self.is_due = self._measures and state.global_step % EVERY == FIRST
        self._sums = None

    def saw_term(self, term: Tensor, model: nn.Module) -> None:
        """Take a micro-step's part of the safety loss, of a graph of its own, in a step that is measured."""
        if not term.requires_grad:
            return
        parameters = _watched(model)
        found = torch.autograd.grad(term, parameters, allow_unused=True)
        parts = [
            torch.zeros_like(p, dtype=torch.float32) if g is None else g.float()
            for p, g in zip(parameters, found, strict=True)
        ]
        if self._sums is None:
            self._sums = parts
        else:
            torch._foreach_add_(self._sums, parts)

    def saw_norm(self, norm: Tensor | float | None) -> None:
        """Take the norm of the step's gradient, before it was clipped."""
        self._norm = norm
        if self._max_norm > 0 and norm is not None:
            norm = whole(norm.detach()) if isinstance(norm, Tensor) else torch.tensor(norm)
            self._cut.append((norm > self._max_norm).float().reshape(()))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare the safety terms' gradient with the whole one, which is complete, and clipped."""
        if not self.is_due:
            return
        parameters = _watched(kwargs["model"])
        # A rank that replays no row takes part, too.
        parts = self._sums or [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
        safety = self._over_ranks(parts)
        self._sums = None
        total = [p.grad.float() for p in parameters if p.grad is not None]
        if len(total) != len(safety):
            return
        self._share = gradient_share(safety, list(torch._foreach_mul(total, self._unclipped())))

    def _over_ranks(self, parts: list[Tensor]) -> list[Tensor]:
        """Return the mean over the ranks, which average their gradients."""
        if self._accelerator.num_processes == 1:
            return parts
        flat = self._accelerator.reduce(torch.cat([part.flatten() for part in parts]), "mean")
        return [f.view_as(p) for f, p in zip(flat.split([p.numel() for p in parts]), parts, strict=True)]

    def _unclipped(self) -> float:
        """Return what takes the clipping of the gradient back."""
        norm = 0.0 if self._norm is None else float(self._norm)
        return max(1.0, (norm + 1e-6) / self._max_norm) if self._max_norm > 0 else 1.0

    def logs(self) -> dict[str, float]:
        """Return the share that was measured since the last call, if any, and how many of the steps were clipped."""
        found = {}
        if self._share is not None:
            share, self._share = self._share.item(), None
            if share > 0:  # else nothing was replayed in that step, or nothing has moved yet
                found["safety/share"] = share
                self._shares.append(share)
                self._say_if_starving()
        if self._cut:
            found["safety/clipped"] = torch.stack(self._cut).mean().item()
            self._cut = []
        return found

    def _say_if_starving(self) -> None:
        if [share > STARVING for share in self._shares[-2:]] == [True, True] and len(self._shares) == 2:
            logger.warning(
                f"The safety terms make {self._shares[-1]:.0%} of the gradient, so that the task is hardly learned. "
                "Lower `safety_weight`, or choose another `teacher_divergence`."
            )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say so where the safety terms did next to nothing."""
        self.logs()
        if self._shares and max(self._shares) < NEGLIGIBLE:
            logger.warning(
                f"The safety terms made at most {max(self._shares):.1%} of the gradient: they have changed next to "
                "nothing. Raise `safety_weight` where the attack success rate has risen."
            )


def gradient_share(safety: list[Tensor], total: list[Tensor]) -> Tensor:
    """Return `‖s‖ / (‖s‖ + ‖g − s‖)`.

    Args:
        safety: the gradient `s` of the safety terms, tensors of any shapes.
        total: the whole gradient `g`, of the same shapes and dtype; it is overwritten.

    Returns:
        A scalar in [0, 1]; 0 where both are 0.
    """
    torch._foreach_sub_(total, safety)
    ours, theirs = (torch.stack([n.to(g[0].device) for n in torch._foreach_norm(g)]).norm() for g in (safety, total))
    return ours / (ours + theirs).clamp_min(torch.finfo(ours.dtype).tiny)


def _watched(model: nn.Module) -> list[Tensor]:
    """Return the trainable parameters, or where they hold more than `MOST_NUMBERS`, every n-th of them."""
    parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    stride = -(-sum(p.numel() for p in parameters) // MOST_NUMBERS)
    return parameters if stride == 1 else [p for p in parameters[::stride] if p.numel() <= MOST_NUMBERS]


def watch_gradients(trainer: Trainer) -> GradientWatch:
    """Return what watches the gradients of a trainer."""
    args: Any = trainer.args
    options = args.gradient_checkpointing_kwargs or {}
    reentrant = args.gradient_checkpointing and options.get("use_reentrant", False)
    projects = any(method.projects for method, _ in args.safety_terms)
    measures = not (reentrant or args.activation_offloading or projects)
    return GradientWatch(trainer.accelerator, args.max_grad_norm, measures)
