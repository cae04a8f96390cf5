"""`safety_weight: auto`: the weight that keeps a term at its budget."""

import torch
from torch import Tensor

#: Steps over which the term is averaged: it is a mean over few rows.
AVERAGED = 10
#: Gains of the weight's controller, as shares of its start, for one optimizer step at twice the budget.
INTEGRAL, PROPORTIONAL, SMOOTHING = 0.1, 0.5, 0.5
#: A term of more than so many budgets counts as so many, so that one bad batch does not decide.
MOST_BUDGETS = 5.0
#: The weight stays between these multiples of its start: it never lets go of the term, nor winds up without bound.
LEAST, MOST = 1 / 3, 10.0
#: A term above so many budgets at the end of training, with the weight at its bound, is said.
TOLERATED = 1.25


class AutoWeight:
    """The multiplier of a term under a budget, by νPI: `λ ← λ + λ₀ (K_i e + K_p Δξ)`, `e = term / budget − 1`.

    Paper: Sohrabi et al., "On PI Controllers for Updating Lagrange Multipliers in Constrained Optimization", ICML
    2024, https://arxiv.org/abs/2406.04558, algorithm 1; ξ is the smoothed error. Departs from it in that the term is
    averaged over the last steps, in that the weight starts at the method's default (refusals are gone within ten
    steps, before a weight that starts at 0 has risen), and in that it is bounded.

    Args:
        method: name of the method whose term it weights.
        start: the weight `λ₀` at the first step.
    """

    def __init__(self, method: str, start: float):
        self.name = f"auto_weight/{method}"
        self._method, self._start = method, start
        #: The weight as it is now, a scalar; equal on every rank.
        self.value = torch.tensor(start)
        self._budget = torch.tensor(float("nan"))
        self._mean = torch.tensor(float("nan"))
        self._error = torch.tensor(0.0)

    def set_budget(self, budget: float) -> None:
        """Take the value that the term is to keep, in its own unit.

        Raises:
            ValueError: when it is not a positive, finite number.
        """
        if not 0 < budget < float("inf"):
            raise ValueError(
                f"The budget of `{self._method}` is {budget}, and must be a positive number. Set `safety_budget`, or "
                "give `safety_weight` a number."
            )
        self._budget = torch.tensor(budget)

    @torch.no_grad()
    def update(self, term: Tensor) -> None:
        """Take the term of a whole optimizer step, a scalar, the same on every rank, and change the weight.

        Nothing is read back from the device. A term that is not finite changes nothing.
        """
        term = term.detach().float()
        before = self.value, self._mean, self._error
        value, mean, smoothed = (tensor.to(term.device) for tensor in before)
        budget = self._budget.to(term.device)
        counted = term.clamp_max(MOST_BUDGETS * budget)
        new_mean = torch.where(mean.isnan(), counted, mean + (counted - mean) / AVERAGED)
        error = new_mean / budget - 1
        new_smoothed = torch.where(mean.isnan(), error, SMOOTHING * smoothed + (1 - SMOOTHING) * error)
        change = INTEGRAL * error + torch.where(mean.isnan(), 0.0, PROPORTIONAL * (new_smoothed - smoothed))
        new_value = (value + self._start * change).clamp(LEAST * self._start, MOST * self._start)
        finite = term.isfinite()
        self.value, self._mean, self._error = (
            torch.where(finite, new, old)
            for new, old in ((new_value, value), (new_mean, mean), (new_smoothed, smoothed))
        )

    @property
    def broken(self) -> str | None:
        """Say that the term is over its budget though the weight cannot rise any more; None where it is not so."""
        mean, budget = float(self._mean), float(self._budget)
        if not (mean > TOLERATED * budget and float(self.value) >= MOST * self._start):
            return None
        return (
            f"`safety_weight: auto` could not keep `{self._method}` at its budget: the term is {mean:.3g}, the budget "
            f"{budget:.3g}, and the weight at its bound, {float(self.value):.3g}. The model has moved away from the "
            "aligned one. Lower `learning_rate`, replay more, or add `safety_from_task: true`."
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run goes on from."""
        return {"value": self.value, "mean": self._mean, "error": self._error, "budget": self._budget}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.value, self._mean, self._error = state["value"], state["mean"], state["error"]
        self._budget = state["budget"]
