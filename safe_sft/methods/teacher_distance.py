"""How far a model's outputs are from the aligned model's, token by token: what DER and LwF share."""

from torch import Tensor

from ..losses import squared_logit_distance, tiled_squared_logit_distance, token_divergence
from ..models.parts import LogitHead
from .base import Preparation, SafetyMethod, TokenStates
from .kept import Kept, Outline

#: Name -> the `beta` of `token_divergence`; `squared` is the distance of logits.
DIVERGENCES = {"squared": None, "kl": 0.0, "jsd": 0.5, "reverse_kl": 1.0}


class TeacherDistance:
    """A distance between the model's next-token outputs and the aligned model's.

    Args:
        head: head of the aligned model.
        divergence: name of the distance: `squared` (`‖z − z₀‖²`), `kl` (from the aligned model's distribution to the
            trained model's), `reverse_kl` or `jsd`.
        temperature: temperature of both distributions; the divergence is multiplied by its square (Hinton et al. 2015,
            https://arxiv.org/abs/1503.02531, section 2), so that gradients keep their size.
    """

    def __init__(self, head: LogitHead, divergence: str, temperature: float):
        self._beta, self._temperature = DIVERGENCES[divergence], temperature
        self._gram = None if builds_logits(divergence, head) else head.gram()

    @classmethod
    def of(cls, method: SafetyMethod, setup: Preparation) -> "TeacherDistance":
        """Make the distance of `method` to the aligned model that it is prepared with."""
        divergence = method.divergence_of(setup.args)
        assert divergence is not None, "a method that compares outputs says how in `divergence`"
        return cls(LogitHead.of(setup.model), divergence, setup.args.teacher_temperature)

    @staticmethod
    def keeps(method: type[SafetyMethod], outline: Outline) -> list[Kept]:
        """Return the size of the head's Gram matrix in float32, which spares building logits; nothing without it."""
        head, divergence = LogitHead.of(outline.model), method.divergence_of(outline.args)
        if builds_logits(divergence, head):
            return []
        return [Kept(f"Gram matrix of the head ({method.name})", 4 * head.weight.size(1) ** 2)]

    def __call__(self, states: TokenStates) -> Tensor:
        """Return the distance of each token, `(tokens,)`, in squared logits or in nats."""
        hidden, teacher_hidden = states.hidden, states.teacher_hidden()
        if self._gram is not None:
            self._gram = self._gram.to(hidden.device)
            return squared_logit_distance(hidden, teacher_hidden, self._gram)
        head = states.head.gathered().to(hidden.device)
        teacher = head if states.teacher_head is states.head else states.teacher_head.gathered().to(hidden.device)
        if self._beta is None:
            return tiled_squared_logit_distance(hidden, head, teacher_hidden, teacher)
        with states.autocast():
            return token_divergence(
                hidden, head, teacher_hidden, teacher, beta=self._beta, temperature=self._temperature
            )


def builds_logits(divergence: str | None, head: LogitHead) -> bool:
    """Return whether a distance builds logits, tile by tile: all but the squared one of a fixed linear head do."""
    return divergence != "squared" or not head.spares_logits
