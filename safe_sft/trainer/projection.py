"""Turns the gradient of a whole optimizer step where it opposes that of replayed safety rows (A-GEM, SafeGrad)."""

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..methods import Projection
from ..models.sharding import local, sum_over_shards
from .micro_steps import MicroStep
from .step_states import StepStates

#: A safety gradient that is this much smaller than the step's, or more, is rounding, and has no direction.
NEGLIGIBLE = 1e-7
#: Most numbers that are converted to float32 at a time (256 MiB).
_AT_A_TIME = 2**26


class StepProjection:
    """Projects the gradient of each optimizer step, and keeps how often it did and the cosines for the log.

    It costs a forward and a backward of the replayed rows, and the memory of a second gradient, at the end of the
    step, when the activations of the task rows are gone. The safety gradient is summed, scaled and averaged over ranks
    as the step's own is. Nothing is drawn from training's random numbers.

    Args:
        method: the method whose `token_losses` give the safety gradient.
        weight: weight with which the safety gradient is added afterwards.
    """

    def __init__(self, method: Projection, weight: float):
        self._method, self._weight = method, weight
        self.name = method.name
        self.forget()

    def turn(self, model: nn.Module, micro_step: MicroStep, states: StepStates, accelerator: Accelerator) -> Tensor:
        """Turn the gradient in `model`, which is complete, averaged over ranks and not clipped yet.

        Every rank must call it, once an optimizer step.

        Args:
            model: the model in training, not wrapped.
            micro_step: the last micro-step.
            states: runs the replayed rows.
            accelerator: the trainer's accelerator.

        Returns:
            This rank's part of the safety loss, a scalar.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        passes = states.replay_passes(micro_step)
        loss = torch.zeros((), device=accelerator.device)
        self._projected.append(False)
        if passes:
            task = [p.grad for p in parameters]
            try:
                _set_gradients(parameters, [None] * len(parameters))
                with states.own_random_numbers():
                    for replay_pass in passes:
                        loss = loss + self._backward(model, replay_pass, states, accelerator)
                safety = _over_ranks(_gradients(parameters), accelerator)
            finally:
                _set_gradients(parameters, task)
            self._add(parameters, safety, accelerator)
        return loss

    def _backward(
        self, model: nn.Module, replay_pass: MicroStep, states: StepStates, accelerator: Accelerator
    ) -> Tensor | float:
        with accelerator.autocast():
            step = states.replayed_apart(model, replay_pass)
            loss = None if step is None else self._method.loss(step)
        if loss is None:
            return 0.0
        accelerator.backward(loss)  # scaled as training's own is
        return loss.detach().float().to(accelerator.device)

    @torch.no_grad()
    def _add(self, parameters: Sequence[Tensor], safety: Sequence[Tensor], accelerator: Accelerator) -> None:
        """Add to each gradient its share of `safety`, and keep what is logged."""
        task = _gradients(parameters)
        products = inner_products(task, safety).to(accelerator.device)
        # One decision on every rank, whatever each has rounded.
        dot, task_square, safety_square = accelerator.reduce(products, "mean").tolist()
        share = safety_share(dot, task_square, safety_square, self._weight)
        if share:
            torch._foreach_add_([local(g) for g in task], [local(s) for s in safety], alpha=share)
            for parameter, gradient, other in zip(parameters, task, safety, strict=True):
                # What neither loss reads keeps no gradient, which an optimizer would decay.
                if parameter.grad is None and local(other).any():
                    parameter.grad = gradient
        if task_square > 0 and not _negligible(safety_square, task_square) and math.isfinite(share):
            self._cosines.append(dot / math.sqrt(task_square) / math.sqrt(safety_square))
            self._projected[-1] = share > self._weight

    def logs(self) -> dict[str, float]:
        """Return the share of the steps since the last call that were projected, and the mean cosine of `g` and `s`.

        They are the same on every rank. The cosine is of the steps that replayed a row; it is left out where none did.
        """
        found: dict[str, list[float]] = {"projected": [*map(float, self._projected)], "cosine": self._cosines}
        self.forget()
        return {f"safety/{self.name}_{key}": sum(values) / len(values) for key, values in found.items() if values}

    def forget(self) -> None:
        """Forget what was to be logged."""
        self._projected: list[bool] = []
        self._cosines: list[float] = []


def safety_share(dot: float, task_square: float, safety_square: float, weight: float) -> float:
    """Return the `c` of `g ← g + c · s`: `weight − min(g·s, 0) / (s·s)`.

    Args:
        dot: `g · s`, of the step's gradient and the safety gradient.
        task_square: `g · g`.
        safety_square: `s · s`.
        weight: weight of `s`.

    Returns:
        A number; NaN where a gradient is not finite, so that the step is stopped, or skipped under fp16.
    """
    if not math.isfinite(dot + task_square + safety_square):
        return math.nan
    if _negligible(safety_square, task_square):
        return weight
    return weight - min(dot, 0.0) / safety_square


def _negligible(safety_square: float, task_square: float) -> bool:
    return safety_square <= NEGLIGIBLE**2 * task_square


def inner_products(task: Sequence[Tensor], safety: Sequence[Tensor]) -> Tensor:
    """Return `(g·s, g·g, s·s)` over all tensors, and over the ranks where these are shards.

    Args:
        task: the parts of `g`, of any shapes and dtypes, on any devices.
        safety: the parts of `s`, the same.
    """
    parts: dict[tuple | None, Tensor] = {}
    sharded: dict[tuple | None, DTensor] = {}
    for g, s in zip(task, safety, strict=True):
        key = (g.device_mesh, g.placements) if isinstance(g, DTensor) else None
        if isinstance(g, DTensor):
            sharded[key] = g
        ours, theirs = local(g), local(s)
        found = torch.stack([_dot(ours, theirs), _dot(ours, ours), _dot(theirs, theirs)])
        parts[key] = found + parts[key].to(found.device) if key in parts else found
    for key, gradient in sharded.items():  # which may be kept on the CPU, where ranks do not meet
        parts[key] = sum_over_shards(parts[key].to(gradient.device_mesh.device_type), gradient)
    first, *others = parts.values()
    return sum((other.to(first.device) for other in others), start=first)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Return the inner product of two tensors of one shape, in float32 or, for float64, in that."""
    dtype = torch.promote_types(left.dtype, torch.float32)
    pieces = zip(left.reshape(-1).split(_AT_A_TIME), right.reshape(-1).split(_AT_A_TIME), strict=True)
    return torch.stack([torch.dot(a.to(dtype), b.to(dtype)) for a, b in pieces]).sum()


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def _over_ranks(gradients: list[Tensor], accelerator: Accelerator) -> list[Tensor]:
    """Make each gradient the mean over ranks; of shards, FSDP2 has made it."""
    if accelerator.num_processes > 1:
        for gradient in gradients:
            if not isinstance(gradient, DTensor):
                gradient.copy_(accelerator.reduce(gradient, "mean"))
    return gradients


def _set_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
