"""The safety terms of a run: their weighted sum in each micro-step, and the means of both losses for the log."""

from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import Tensor, nn

from ..config.safe_sft_config import SafeSFTConfig
from ..methods import Preparation, Projection, SafetyMethod, StepContext
from ..methods.registry import AUTO, default_weight
from .auto_weight import AutoWeight
from .guards import StepGuard
from .method_states import Stateful
from .micro_steps import MicroStep
from .projection import StepProjection
from .step_means import StepMeans
from .step_states import StepStates

logger = get_logger(__name__)


class SafetyTerms:
    """The methods of a run with their weights. Empty, it is plain SFT.

    Args:
        terms: the methods, each with its weight; `auto` for one that keeps the term at its budget.
        divergence: the run's `teacher_divergence`, in whose unit the weights that `auto` starts from are.
    """

    def __init__(self, terms: Sequence[tuple[SafetyMethod, float | str]] = (), divergence: str | None = None):
        self.methods = [method for method, _ in terms]
        self._auto = {
            m.name: AutoWeight(m.name, default_weight(type(m), divergence)) for m, weight in terms if weight == AUTO
        }
        self._fixed = {method.name: float(weight) for method, weight in terms if weight != AUTO}
        projecting = [(method, float(weight)) for method, weight in terms if isinstance(method, Projection)]
        self._projection = StepProjection(*projecting[0]) if projecting else None
        self.guard = StepGuard(self.methods)
        self.forget()

    @classmethod
    def of(cls, args: SafeSFTConfig) -> "SafetyTerms":
        """Make the methods that `safety_method` names."""
        return cls([(method(), weight) for method, weight in args.safety_terms], args.teacher_divergence)

    def __len__(self) -> int:
        return len(self.methods)

    def __iter__(self) -> Iterator[tuple[SafetyMethod, float]]:
        return iter([(method, float(self._weight(method.name))) for method in self.methods])

    @property
    def replay(self) -> bool:
        """Whether a method replays safety rows."""
        return any(method.needs_replay for method in self.methods)

    @property
    def stateful(self) -> list[Stateful]:
        """Return what has a state that goes with a checkpoint: the methods, and the weights that change."""
        return [*self.methods, *self._auto.values()]

    def prepare(self, setup: Preparation) -> None:
        """Let each method read the aligned model, and set the budgets of the weights that change."""
        for method in self.methods:
            method.prepare(setup)
            if auto := self._auto.get(method.name):
                auto.set_budget(setup.args.safety_budget or method.budget(setup))
        self.guard.prepared(setup.model)

    def _weight(self, name: str) -> float | Tensor:
        return self._auto[name].value if name in self._auto else self._fixed[name]

    def forget(self) -> None:
        """Forget what an earlier training left of its last steps."""
        self._means = StepMeans()
        self._step: dict[str, Tensor] = {}
        if self._projection is not None:
            self._projection.forget()

    def saw_task(self, loss: Tensor, step: StepContext, divisor: int) -> None:
        """Record the task's loss in this micro-step, which `Trainer` will divide by `divisor`."""
        name = "safety/rows_loss" if step.on_safety_rows else "task_loss"
        self._means.add(name, loss / divisor, begins_step=step.first_micro_step)
        self.guard.saw_loss("task_loss", loss)

    def loss(self, step: StepContext, device: torch.device) -> Tensor:
        """Return the weighted sum of the terms, normalised over the optimizer step, and record them for the log."""
        values = self._values(step)
        for name, value in values.items():
            self._means.add(f"safety/{name}", value)
            self.guard.saw_loss(name, self._weight(name) * value)
            if name in self._auto:
                self._step[name] = self._step.get(name, 0.0) + value.detach().float()
        total = self._sum(values, device)
        self.guard.follow(total)
        self._means.add("safety_loss", total)
        return total

    def loss_to_look_at(self, step: StepContext, device: torch.device) -> Tensor:
        """Return the same sum and record nothing; `step` comes from forwards of its own."""
        return self._sum(self._values(step), device)

    def turn_gradient(
        self, model: nn.Module, micro_step: MicroStep, states: StepStates | None, accelerator: Accelerator
    ) -> Tensor | float:
        """Let the method that projects, if there is one, turn the gradient of an optimizer step, which is complete.

        Every rank must call it. Returns this rank's part of the weighted loss that the step follows by it.
        """
        if self._projection is None:
            return 0.0
        assert states is not None, "a method that replays has the states of replayed rows"
        value, name = self._projection.turn(model, micro_step, states, accelerator), self._projection.name
        weighted = self._weight(name) * value
        self._means.add(f"safety/{name}", value)
        self._means.add("safety_loss", weighted)
        self.guard.saw_loss(name, value)
        return weighted

    def _values(self, step: StepContext) -> dict[str, Tensor]:
        values = {method.name: method.loss(step) for method in self.methods if not method.projects}
        return {name: value for name, value in values.items() if value is not None}

    def _sum(self, values: dict[str, Tensor], device: torch.device) -> Tensor:
        total = torch.zeros((), device=device)
        for name, value in values.items():
            total = total + (self._weight(name) * value).to(device)
        return total

    def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
        """Tell the methods that the weights of the model have changed, and let those of the terms follow.

        Every rank must call it, once an optimizer step.
        """
        for method in self.methods:
            method.after_step(model)
        if self._step:
            reduced = accelerator.reduce(torch.stack(list(self._step.values())).to(accelerator.device), "mean")
            for name, value in zip(self._step, reduced, strict=True):
                self._auto[name].update(value)
            self._step = {}

    def say_what_broke(self) -> None:
        """Log a warning for each term that its weight could not keep at its budget."""
        for auto in self._auto.values():
            if broken := auto.broken:
                logger.warning(broken)

    def logs(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means since the last call and the weights, equal on every rank; every rank must call it."""
        weights = {f"safety/{name}_weight": float(auto.value) for name, auto in self._auto.items()}
        projected = {} if self._projection is None else self._projection.logs()
        return {**self._means.flush(accelerator), **weights, **projected}
