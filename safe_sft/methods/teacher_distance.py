"""How far a model's outputs are from the aligned model's, token by token: what DER and LwF share."""

from torch import Tensor

from ..losses import logit_gram, squared_logit_distance, tiled_squared_logit_distance, token_divergence
from ..models.parts import LogitHead
from .base import TokenStates

#: Name -> the `beta` of `token_divergence`; `squared` is the distance of logits.
DIVERGENCES = {"squared": None, "kl": 0.0, "jsd": 0.5, "reverse_kl": 1.0}


class TeacherDistance:
    """A distance between the model's next-token outputs and the aligned model's.

    Args:
        head: the head of the aligned model.
        divergence: `squared` (`‖z − z₀‖²`), `kl` (of the aligned model's distribution from the model's), `reverse_kl`
            or `jsd`.
        temperature: of both distributions; the divergence is multiplied by its square (Hinton et al. 2015,
            https://arxiv.org/abs/1503.02531, section 2), so that gradients keep their size.
    """

    def __init__(self, head: LogitHead, divergence: str, temperature: float):
        self._beta, self._temperature = DIVERGENCES[divergence], temperature
        exact_without_logits = divergence == "squared" and not head.trained and head.softcap is None
        self._gram = logit_gram(head.gathered().weight.detach()) * head.scale**2 if exact_without_logits else None

    def __call__(self, states: TokenStates) -> Tensor:
        """`(tokens,)`: squared logits, or nats."""
        hidden, teacher_hidden = states.hidden, states.teacher_hidden()
        if self._gram is not None:
            self._gram = self._gram.to(hidden.device)
            return squared_logit_distance(hidden, teacher_hidden, self._gram)
        head = states.head.gathered().to(hidden.device)
        teacher = head if states.teacher_head is states.head else states.teacher_head.gathered().to(hidden.device)
        heads = (head.weight, teacher_hidden, teacher.weight, head.bias, teacher.bias, head.scale, head.softcap)
        if self._beta is None:
            return tiled_squared_logit_distance(hidden, *heads)
        with states.autocast():
            return token_divergence(hidden, *heads, beta=self._beta, temperature=self._temperature)
