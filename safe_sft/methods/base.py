"""The base classes of safety methods: a term of the loss, and what it needs before and during training."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..data import TokenizedRow
from ..importance import AnchoredSpace, SpaceSizes, anchor_space, space_sizes
from ..models.parts import LogitHead
from .kept import Kept, Outline


@dataclass(frozen=True)
class TokenStates:
    """The hidden states that a forward gives the methods, at the supervised tokens of replayed rows or of task rows.

    Attributes:
        hidden: last hidden states that predict `targets`, `(tokens, d)`, with gradient.
        targets: token ids to predict, `(tokens,)`.
        head: the model's head as it is now.
        teacher_hidden: function that returns the aligned model's states, `(tokens, d)`, without gradient.
        teacher_head: the aligned model's head.
        autocast: context with the precision of training, in which TRL's kernels project onto the vocabulary.
        places: place of each target in its answer, from 0, `(tokens,)`; of task rows alone.
        aligned_losses: the aligned model's loss on each target, in nats, `(tokens,)`, where it was computed before
            training.
    """

    hidden: Tensor
    targets: Tensor
    head: LogitHead
    teacher_hidden: Callable[[], Tensor]
    teacher_head: LogitHead
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    places: Tensor | None = None
    aligned_losses: Tensor | None = None

    def heads(self) -> tuple[LogitHead, LogitHead]:
        """Return the model's head and the aligned model's, whole, on the device of `hidden`."""
        head = self.head.gathered().to(self.hidden.device)
        if self.teacher_head is self.head:
            return head, head
        return head, self.teacher_head.gathered().to(self.hidden.device)


def _no_states() -> TokenStates:
    raise ValueError("Nothing is replayed, so there are no states of the aligned model on safety rows.")


@dataclass(frozen=True)
class Preparation:
    """What a method may read before training.

    Attributes:
        model: the aligned model, on its device, not yet wrapped for distribution.
        args: the trainer's `SafeSFTConfig`; a method reads the fields that it declares in `reads`.
        rows: function that returns the safety rows, tokenised at the first call; for methods with `needs_rows`.
        tokenizer: the model's tokenizer.
        autocast: context in which the model runs in the precision of training.
        aligned_states: function that returns the aligned model's states on the beginnings of safety answers; for
            methods with `needs_replay`.
    """

    model: nn.Module
    args: Any
    rows: Callable[[], list[TokenizedRow]]
    tokenizer: PreTrainedTokenizerBase
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    aligned_states: Callable[[], TokenStates] = _no_states


@dataclass(frozen=True)
class StepContext:
    """What a method's loss depends on in one micro-step.

    Attributes:
        first_micro_step: whether this is the first micro-step of its optimizer step.
        replay: the replayed rows, or None when this micro-step replays none.
        task: the task rows, or None when no method distils on them.
        replay_token_share: weight of one replayed token of this rank in the mean over the optimizer step.
        task_token_share: weight of one supervised task token in the mean over the optimizer step.
        on_safety_rows: whether the batch is of safety rows, in the place of the task's.
    """

    first_micro_step: bool
    replay: TokenStates | None = None
    task: TokenStates | None = None
    replay_token_share: float = 0.0
    task_token_share: float | Tensor = 0.0
    on_safety_rows: bool = False


class SafetyMethod(ABC):
    """One term of the safety loss. Methods are final classes; the trainer weights and logs their terms.

    The first line of a method's docstring says what it adds to the loss: help and tables show it.
    """

    name: ClassVar[str]
    default_weight: ClassVar[float]
    #: `teacher_divergence` -> the default weight with it, where its unit asks for another one.
    default_weights: ClassVar[Mapping[str, float]] = {}
    #: BibTeX of its paper, which a model card cites.
    bibtex: ClassVar[str]
    #: Fields of `SafeSFTConfig` that the method reads, beside those that every method shares.
    reads: ClassVar[frozenset[str]] = frozenset()
    needs_replay: ClassVar[bool] = False
    needs_task_states: ClassVar[bool] = False
    #: Whether the aligned model's loss on each task token, computed before training, is all it needs of that model.
    keeps_task_losses: ClassVar[bool] = False
    #: Whether `prepare` may ask for the safety rows.
    needs_rows: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    #: The distance to the aligned model's outputs, unless `teacher_divergence` names another; None for none.
    divergence: ClassVar[str | None] = None
    #: Whether `safety_weight: auto` may choose its weight: `budget` says what its term is to keep.
    has_budget: ClassVar[bool] = False
    #: Whether some optimizer steps train on safety rows in the place of the task's.
    alternates: ClassVar[bool] = False
    #: Which steps these are (`replay.alternation`); the trainer sets it where a method alternates.
    alternation: Any = None
    #: Whether it adds to the loss, and so takes a weight.
    has_loss: ClassVar[bool] = True
    #: The largest weight under which the term means what it says.
    largest_weight: ClassVar[float] = float("inf")
    #: Whether its term gives the tokens of the task's answers other weights in the task's own cross-entropy.
    reweights_task: ClassVar[bool] = False
    #: Whether it turns the gradient of the whole optimizer step: the methods of `projection.py`.
    projects: ClassVar[bool] = False

    @classmethod
    def divergence_of(cls, args: Any) -> str | None:
        """Return the distance to the aligned model's outputs that these settings choose, by name; None for none."""
        return None if cls.divergence is None else args.teacher_divergence or cls.divergence

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return what the method keeps in memory beside the model; `safe-sft plan` asks before anything is loaded."""
        return []

    def prepare(self, setup: Preparation) -> None:  # noqa: B027
        """Read what is needed off the aligned model, before training."""

    def budget(self, setup: Preparation) -> float:
        """Return the value, in the term's own unit, that `safety_weight: auto` keeps it at; called after `prepare`."""
        raise NotImplementedError(f"`{self.name}` has no budget, and says so in `has_budget`")

    @abstractmethod
    def loss(self, step: StepContext) -> Tensor | None:
        """Return this micro-step's part of the optimizer step's term: a scalar, or None for nothing."""

    def after_step(self, model: nn.Module) -> None:  # noqa: B027
        """Take note of the new weights, after each optimizer step."""

    def deployed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Give `model` the weights to save and measure inside this context, and the trained ones again afterwards."""
        return nullcontext()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run cannot recompute; it is saved with every checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027
        """Restore what `state_dict` returned."""


class WeightAnchor(SafetyMethod):
    """A quadratic penalty that ties the weights to the aligned ones; counted once per optimizer step."""

    reads = frozenset({"importance_space", "penalty_normalization"})
    _space: AnchoredSpace
    #: The penalty of weights that are moved by their own size; None where the penalty is an absolute one.
    _unit: Tensor | None = None

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return the size of the anchors; nothing where they are zero."""
        anchors = sizes_of(outline).anchors
        return [Kept("anchors", anchors)] if anchors else []

    def prepare(self, setup: Preparation) -> None:
        """Anchor the model's weights at their present values."""
        self._space = anchor_space(setup.model, setup.args.importance_space)
        self._weigh(setup)
        if setup.args.penalty_normalization == "relative":
            self._unit = _unit(self._space)

    def _weigh(self, setup: Preparation) -> None:
        """Give the space the importance of each weight; by default all weigh the same."""

    @property
    def space(self) -> str:
        """The name of the space that the penalty is taken over."""
        return self._space.name

    def penalty(self) -> Tensor:
        """Return the penalty at the present weights: a scalar; a share where it is relative."""
        penalty = self._space.penalty()
        return penalty if self._unit is None else penalty / self._unit.to(penalty.device)

    def loss(self, step: StepContext) -> Tensor | None:
        """Return the penalty in the first micro-step, and None in the others, where the weights are the same."""
        return self.penalty() if step.first_micro_step else None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the anchors and the unit of the penalty, for a checkpoint."""
        return {**self._space.state_dict(), **({} if self._unit is None else {_UNIT: self._unit})}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the anchors and the unit of a checkpoint."""
        unit = state.get(_UNIT)
        self._unit = self._unit if unit is None else unit
        self._space.load_state_dict({name: tensor for name, tensor in state.items() if name != _UNIT})


#: Name of the unit among the anchors of a checkpoint.
_UNIT = "penalty_unit"


def _unit(space: AnchoredSpace) -> Tensor:
    """Return `½ Σ ω θ*²`.

    Raises:
        ValueError: when it is 0 or not finite.
    """
    unit = space.size() / 2
    if not 0 < unit < float("inf"):
        raise ValueError(
            f"The anchored weights have the size {unit}, so a penalty cannot be relative to it: all are 0, or of no "
            "importance. Give safety rows that the model answers with some uncertainty; for a fresh LoRA, set "
            "`importance_space: weight`; or set `penalty_normalization: none`."
        )
    return torch.tensor(unit)


def sizes_of(outline: Outline) -> SpaceSizes:
    """Return what the space of a weight penalty takes in memory."""
    return space_sizes(outline.model, outline.trainable, outline.args.importance_space, fresh=outline.fresh)


class Replay(SafetyMethod):
    """A loss on replayed safety rows: the mean over the supervised tokens of the whole optimizer step."""

    reads = frozenset(
        {"replay_ratio", "replay_max_answer_tokens", "replay_max_new_tokens", "safety_from_task"}
        | {"safety_rows_in_task_format", "safety_task_template"}
    )
    needs_replay = True

    @abstractmethod
    def token_losses(self, replay: TokenStates) -> Tensor:
        """Return the loss of each supervised token, `(tokens,)`."""

    def loss(self, step: StepContext) -> Tensor | None:
        """Return this micro-step's part of the mean over the optimizer step's replayed tokens; 0 where it has none."""
        if step.replay is None:
            return torch.zeros(())
        return self.token_losses(step.replay).sum() * step.replay_token_share


class Distillation(SafetyMethod):
    """A loss on the task rows against the aligned model: the mean over the step's supervised task tokens."""

    needs_task_states = True

    @abstractmethod
    def token_losses(self, task: TokenStates) -> Tensor:
        """Return the loss of each supervised token, `(tokens,)`."""

    def loss(self, step: StepContext) -> Tensor | None:
        """Return this micro-step's part of the mean over the optimizer step's task tokens."""
        assert step.task is not None
        return self.token_losses(step.task).sum() * step.task_token_share
