"""The score of a row, and what it is made of: pure numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .signals import Signals

#: What a request that reads as a safety request adds, in nats: found on SST2, GSM8K and code (`docs/screening.md`).
NATS_OF_CLOSENESS = 3.0
#: Least surprise that an answer counts with, in nats per token: one that the model would give itself has next to none.
_LEAST_NLL = 1e-3


@dataclass(frozen=True)
class RowScore:
    """What the aligned model says of a row.

    Attributes:
        index: place of the row.
        turn: which of its answers the numbers are of, from 0: the one with the highest score.
        score: how much speaks for a row that trains a refusal away, in nats; None where the row was not scored,
            because no room was left behind its request.
        refusal: log-probability that the model opens with one of its refusals, in nats.
        answer_nll: mean negative log-likelihood of the answer's tokens, in nats per token.
        beginning_nll: the same of its first tokens.
        closeness: how the request reads in the model's states: 1 as a safety request, -1 as a harmless one.
        verdicts: verdict of each judge on the answer, by name.
    """

    index: int
    turn: int = 0
    score: float | None = None
    refusal: float | None = None
    answer_nll: float | None = None
    beginning_nll: float | None = None
    closeness: float | None = None
    verdicts: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> float:
        """The score; minus infinity where there is none."""
        return -math.inf if self.score is None else self.score

    @property
    def refusal_probability(self) -> float:
        """How likely the model is to open with one of its refusals."""
        return 0.0 if self.refusal is None else math.exp(self.refusal)

    @property
    def cleared(self) -> bool:
        """Whether a judge says that the answer refuses: the row then trains a refusal."""
        return "refused" in self.verdicts.values()

    def with_verdicts(self, verdicts: Mapping[str, str]) -> "RowScore":
        """Return the score with the verdicts of judges."""
        return replace(self, verdicts=dict(verdicts))

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values, without the place and the verdicts, which are not kept."""
        names = ("turn", "score", "refusal", "answer_nll", "beginning_nll", "closeness")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RowScore":
        """Make it of plain values."""
        return cls(**values)


def suspicion(refusal: float, beginning_nll: float, closeness: float) -> float:
    """Compute how much speaks for a row that trains a refusal away, in nats.

    The log-probability that the model refuses the request, plus the log of how little it would say the beginning of
    the row's answer itself (one minus the mean probability, geometric, of its tokens), plus `NATS_OF_CLOSENESS` for a
    request that reads as a safety request, minus as much for one that reads as harmless. A surprise beyond that counts
    no more: on a task that a model has not learned, every answer surprises it (`docs/screening.md`).

    Args:
        refusal: log-probability of its refusals, in nats.
        beginning_nll: mean negative log-likelihood of the answer's first tokens, in nats per token.
        closeness: reading of the request, 1 as a safety request, -1 as a harmless one.
    """
    unsaid = math.log(-math.expm1(-max(beginning_nll, _LEAST_NLL)))
    return refusal + unsaid + NATS_OF_CLOSENESS * closeness


def score_of(index: int, turn: int, signals: Signals, closeness: float) -> RowScore:
    """Make the score of an answer from what was read off the model.

    Args:
        index: place of the row.
        turn: which of its answers this is.
        signals: what was read off the model.
        closeness: how the request reads in the model's states.
    """
    score = suspicion(signals.refusal, signals.beginning_nll, closeness)
    return RowScore(index, turn, score, signals.refusal, signals.answer_nll, signals.beginning_nll, closeness)
