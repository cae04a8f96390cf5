"""What a card says of a run, beside what was measured. What is not known is absent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Term:
    """One term of the loss.

    Attributes:
        method: its name.
        weight: of the term.
        space: what a weight penalty is taken over.
        estimator: how the importance of the weights was estimated.
    """

    method: str
    weight: float
    space: str | None = None
    estimator: str | None = None


@dataclass(frozen=True)
class SafetyRowsFacts:
    """The safety rows of a run.

    Attributes:
        name: as the user named them; None when they were passed as rows.
        rows: how many.
        digest: of their texts.
    """

    name: str | None
    rows: int
    digest: str


@dataclass(frozen=True)
class RunFacts:
    """How a model was made.

    Attributes:
        method: `safety_method` as the user wrote it.
        terms: of the loss.
        base_model: the aligned model, where it is one of the Hub.
        base_revision: its commit.
        safety_rows: None when the method uses none.
        replay_share: replayed rows among all rows of a step; None without replay.
        teacher: `online` or `cached`; None without a teacher.
        data: the report on the training data, as plain values.
        recipe: the resolved recipe.
        versions: of this package and those that it stands on.
    """

    method: str
    terms: tuple[Term, ...] = ()
    base_model: str | None = None
    base_revision: str | None = None
    safety_rows: SafetyRowsFacts | None = None
    replay_share: float | None = None
    teacher: str | None = None
    data: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class CardContent:
    """What a card says that the trainer cannot know; whoever builds the trainer does.

    Attributes:
        measured: how safe the model is, from `evaluation.output.results.results`.
        data: the report on the training data, as plain values.
        recipe: the resolved recipe.
        safety_set: name of the safety rows.
    """

    measured: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] | None = None
    safety_set: str | None = None
