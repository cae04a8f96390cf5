"""How far a model's outputs are from the aligned model's, token by token: what DER and LwF share."""

import torch
from torch import Tensor

from ..losses import (
    live_words,
    squared_hidden_distance,
    squared_logit_distance,
    tiled_squared_logit_distance,
    token_divergence,
)
from ..models.parts import LogitHead
from .base import Preparation, Replay, SafetyMethod, TokenStates
from .kept import Kept, Outline

#: Name -> the `beta` of `token_divergence`; None for the distances of logits and of hidden states.
DIVERGENCES = {"squared": None, "relative_squared": None, "hidden": None, "kl": 0.0, "jsd": 0.5, "reverse_kl": 1.0}
#: Name -> the distance that `safety_weight: auto` allows a replayed token, on average. The paper's squared distance
#: has no unit that models share.
BUDGETS = {"relative_squared": 0.004, "kl": 0.02, "jsd": 0.005, "reverse_kl": 0.02}
#: Divergences of logits; neither they nor those of hidden states have a temperature.
OF_LOGITS = ("squared", "relative_squared")
#: Divergences of last hidden states, which only methods on the task's rows have.
OF_STATES = ("hidden",)
#: Divergences in units of the aligned model's own outputs on safety rows, which only replaying methods have.
RELATIVE = ("relative_squared",)


class TeacherDistance:
    """A distance between the model's next-token outputs and the aligned model's.

    Args:
        head: head of the aligned model.
        divergence: name of the distance: `squared` (`‖z − z₀‖²`), `relative_squared` (the same of centred logits, as a
            share of the aligned model's own `‖z₀‖²`), `hidden` (`‖h − h₀‖²`), `kl` (from the aligned model's
            distribution to the trained model's), `reverse_kl` or `jsd`.
        temperature: temperature of both distributions; the divergence is multiplied by its square (Hinton et al. 2015,
            https://arxiv.org/abs/1503.02531, section 2), so that gradients keep their size.
        words: for `relative_squared`, the number of tokens that the tokenizer has; all rows of the head by default.
        states: for `relative_squared`, the aligned model's hidden states on safety rows, `(tokens, d)`.
    """

    def __init__(
        self,
        head: LogitHead,
        divergence: str,
        temperature: float,
        *,
        words: int | None = None,
        states: Tensor | None = None,
    ):
        self._divergence, self._beta, self._temperature = divergence, DIVERGENCES[divergence], temperature
        self._live: Tensor | None = None
        self._norm: Tensor | None = None
        if divergence in RELATIVE:
            assert states is not None, "a relative distance is a share of the aligned model's own logits"
            head = head.gathered()
            self._live = live_words(head.weight.detach(), words or head.weight.size(0))
            self._norm = _mean_squared_norm(states.to(head.weight.device), head, self._live)
        self._gram = head.gram(self._live) if takes_gram(divergence, head) else None

    @classmethod
    def of(cls, method: SafetyMethod, setup: Preparation) -> "TeacherDistance":
        """Make the distance of `method` to the aligned model that it is prepared with."""
        divergence = method.divergence_of(setup.args)
        assert divergence is not None, "a method that compares outputs says how in `divergence`"
        states = setup.aligned_states().hidden if divergence in RELATIVE else None
        words = len(setup.tokenizer)
        return cls(LogitHead.of(setup.model), divergence, setup.args.teacher_temperature, words=words, states=states)

    @staticmethod
    def keeps(method: type[SafetyMethod], outline: Outline) -> list[Kept]:
        """Return the size of the head's Gram matrix in float32, which spares building logits; nothing without it."""
        head, divergence = LogitHead.of(outline.model), method.divergence_of(outline.args)
        if not takes_gram(divergence, head):
            return []
        return [Kept(f"Gram matrix of the head ({method.name})", 4 * head.weight.size(1) ** 2)]

    def __call__(self, states: TokenStates) -> Tensor:
        """Return the distance of each token, `(tokens,)`: squared logits or states, a share, or nats."""
        if self._divergence in OF_STATES:
            return squared_hidden_distance(states.hidden, states.teacher_hidden())
        if self._beta is not None:
            return self._of_distributions(states)
        distance = self._of_logits(states)
        return distance if self._norm is None else distance / self._norm.to(distance.device)

    def _of_logits(self, states: TokenStates) -> Tensor:
        hidden, teacher_hidden = states.hidden, states.teacher_hidden()
        if self._gram is not None:
            self._gram = self._gram.to(hidden.device)
            return squared_logit_distance(hidden, teacher_hidden, self._gram)
        live = None if self._live is None else self._live.to(hidden.device)
        head, teacher = states.heads()
        return tiled_squared_logit_distance(hidden, head, teacher_hidden, teacher, live)

    def _of_distributions(self, states: TokenStates) -> Tensor:
        head, teacher = states.heads()
        assert self._beta is not None
        with states.autocast():
            return token_divergence(
                states.hidden, head, states.teacher_hidden(), teacher, beta=self._beta, temperature=self._temperature
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the unit of a relative distance, for a checkpoint; nothing for the others."""
        return {} if self._norm is None else {"teacher_norm": self._norm}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the unit of a relative distance."""
        if self._norm is not None and "teacher_norm" in state:
            self._norm = state["teacher_norm"].to(self._norm.device)


@torch.no_grad()
def _mean_squared_norm(states: Tensor, head: LogitHead, live: Tensor) -> Tensor:
    """Return the mean of `‖z₀‖²` over tokens, centred: the distance from logits that are all zero."""
    norms = tiled_squared_logit_distance(states, head, torch.zeros_like(states), head.without_bias(), live)
    return norms.mean().clamp_min(torch.finfo(norms.dtype).tiny)


def takes_gram(divergence: str | None, head: LogitHead) -> bool:
    """Return whether a distance takes the head's Gram matrix instead of logits: those of logits, of a fixed head."""
    return divergence in OF_LOGITS and head.spares_logits


def builds_logits(divergence: str | None, head: LogitHead) -> bool:
    """Return whether a distance builds logits, tile by tile: all do but those of states and those by Gram matrix."""
    return divergence not in OF_STATES and not takes_gram(divergence, head)


class ByTeacherDistance(SafetyMethod):
    """A loss on replayed rows that is the distance to the aligned model's outputs; named before the family."""

    reads = Replay.reads | {"teacher", "teacher_cache", "teacher_divergence", "teacher_memory", "teacher_temperature"}
    needs_teacher = True
    divergence = "kl"
    _distance: TeacherDistance

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return what the family keeps, and what the distance keeps in memory."""
        return [*super().keeps(outline), *TeacherDistance.keeps(cls, outline)]

    def prepare(self, setup: Preparation) -> None:
        """Copy the aligned model's head."""
        self._distance = TeacherDistance.of(self, setup)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the unit of the distance, for a checkpoint."""
        return self._distance.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the unit of the distance."""
        self._distance.load_state_dict(state)

    def token_losses(self, replay: TokenStates) -> Tensor:
        """Return `KL(p₀ ‖ p)` of each token, in nats (or the chosen distance)."""
        return self._distance(replay)
