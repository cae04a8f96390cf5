"""What a card says of a run, beside the measured numbers. What is not known is left out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Term:
    """One term of the loss.

    Attributes:
        method: name of the method.
        weight: weight of the term.
        space: what a weight penalty is taken over: `adapter` or `weight`.
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
        name: name that the user gave; None when the rows were passed themselves.
        rows: number of rows.
        digest: digest of the texts.
    """

    name: str | None
    rows: int
    digest: str


@dataclass(frozen=True)
class RunFacts:
    """How a model was made.

    Attributes:
        method: `safety_method` as the user wrote it.
        terms: the safety terms of the loss.
        base_model: Hub name of the aligned model; None for a local one.
        base_revision: commit of `base_model`.
        safety_rows: the safety rows; None when the method uses none.
        replay_share: replayed rows among all rows of a step; None without replay.
        teacher: `online` or `cached`; None without a teacher.
        data: the report on the training data, as plain values.
        recipe: the resolved recipe.
        versions: version of this package and of those that it uses, by name.
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
        """Return the facts as plain values for JSON, without those that are not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class CardContent:
    """What a card says that the trainer itself cannot know; whoever builds the trainer sets it.

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
