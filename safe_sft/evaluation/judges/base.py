"""The interface of every judge, and the verdicts that it can give."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum


class Verdict(str, Enum):
    """The verdict of a judge on one answer."""

    REFUSED = "refused"
    #: It did what was asked: on a harmful request, the attack succeeded.
    COMPLIED = "complied"
    #: Nothing harmful, by a judge that does not tell whether it refused.
    SAFE = "safe"
    #: Nothing that could be judged: empty, without a single word, or one thing over and over.
    DEGENERATE = "degenerate"
    #: The judge gave no verdict: an API that failed, or an output that cannot be read.
    UNJUDGED = "unjudged"


class Judge(ABC):
    """Gives each answer a verdict.

    Attributes:
        name: name that tables show.
        tells_refusals: whether the judge can say `REFUSED`; only such judges measure over-refusal.
    """

    name: str
    tells_refusals: bool = True

    @abstractmethod
    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Return a verdict for each answer.

        Args:
            prompts: the requests.
            answers: the model's answer to each, including a beginning that an attack forced.
        """
