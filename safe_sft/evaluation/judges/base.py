"""The interface of every judge, and the verdicts that it can give."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from functools import wraps
from typing import Any

from ..thoughts import split_thought


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


def text_revision(text: str) -> str:
    """Return a short digest of the text that a judge goes by.

    Args:
        text: phrases, or a rubric.
    """
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def commit_of(model: Any) -> str | None:
    """Return the commit of the Hub that a judge's model was loaded from; None for a local one.

    Args:
        model: a model with a configuration.
    """
    return getattr(model.config, "_commit_hash", None)


class Judge(ABC):
    """Gives each answer a verdict.

    Attributes:
        name: name that tables show.
        tells_refusals: whether the judge can say `REFUSED`; only such judges measure over-refusal.
    """

    name: str
    tells_refusals: bool = True

    @property
    def revision(self) -> str | None:
        """Which revision of the judge this is: a commit, or a digest of what it goes by; None where none is known."""
        return None

    @property
    def failure(self) -> str | None:
        """Why the judge could judge nothing so far; None for one that cannot fail, or that has judged something."""
        return None

    @abstractmethod
    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Return a verdict for each answer.

        Args:
            prompts: the requests.
            answers: the model's answer to each, including a beginning that an attack forced.
        """


def judges_answers(
    judge: Callable[[Any, Sequence[str], Sequence[str]], list[Verdict]],
) -> Callable[[Any, Sequence[str], Sequence[str]], list[Verdict]]:
    """Make `judge` see what follows the thought of each answer; one that ends inside its thought is unjudged.

    Args:
        judge: the method `judge` of a judge.
    """

    @wraps(judge)
    def without_thoughts(self: Any, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        said = [split_thought(answer).answer for answer in answers]
        kept = [i for i, text in enumerate(said) if text is not None]
        found = judge(self, [prompts[i] for i in kept], [said[i] or "" for i in kept])
        verdicts = dict(zip(kept, found, strict=True))
        return [verdicts.get(i, Verdict.UNJUDGED) for i in range(len(said))]

    return without_thoughts
