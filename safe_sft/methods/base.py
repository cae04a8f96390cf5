"""What a safety method is: a term of the loss, and what it needs before and during training."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..data import TokenizedRow
from ..importance import AnchoredSpace, SpaceSizes, anchor_space, build_importance, load_importance, space_sizes
from ..models.modes import placed
from ..models.parts import LogitHead
from .kept import Kept, Outline


@dataclass(frozen=True)
class TokenStates:
    """What a forward leaves for the methods: the supervised tokens of replayed rows, or of task rows.

    Attributes:
        hidden: `(tokens, d)`, last hidden states that predict `targets`, with gradient.
        targets: `(tokens,)`, token ids.
        head: the model's head as it is now.
        teacher_hidden: gives `(tokens, d)`, the aligned model's states, without gradient.
        teacher_head: the aligned model's head.
        autocast: the precision of training, in which TRL's kernels project onto the vocabulary.
    """

    hidden: Tensor
    targets: Tensor
    head: LogitHead
    teacher_hidden: Callable[[], Tensor]
    teacher_head: LogitHead
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Preparation:
    """What a method may read before training.

    Attributes:
        model: the aligned model, on its device, not yet wrapped for distribution.
        args: the `SafeSFTConfig`; a method reads the fields that it declares in `reads`.
        rows: the safety rows, tokenised on first call; for methods with `needs_rows`.
        tokenizer: the model's tokenizer.
        autocast: the precision of training.
    """

    model: nn.Module
    args: Any
    rows: Callable[[], list[TokenizedRow]]
    tokenizer: PreTrainedTokenizerBase
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class StepContext:
    """One micro-step, as far as a method's loss depends on it.

    Attributes:
        first_micro_step: whether it opens its optimizer step.
        replay: the replayed rows, or None when no method replays.
        task: the task rows, or None when no method distils on them.
        replay_token_share: what one replayed token of this rank counts for in the mean over the optimizer step.
        task_token_share: the same of one supervised task token.
    """

    first_micro_step: bool
    replay: TokenStates | None = None
    task: TokenStates | None = None
    replay_token_share: float = 0.0
    task_token_share: float | Tensor = 0.0


class SafetyMethod(ABC):
    """One term of the safety loss. Concrete methods are final; the trainer weights and logs them.

    The first line of a method's docstring says what it adds to the loss: help and tables show it.
    """

    name: ClassVar[str]
    default_weight: ClassVar[float]
    #: BibTeX of its paper, which a model card cites.
    bibtex: ClassVar[str]
    #: Fields of `SafeSFTConfig` that the method reads, beside those that every method shares.
    reads: ClassVar[frozenset[str]] = frozenset()
    needs_replay: ClassVar[bool] = False
    needs_task_states: ClassVar[bool] = False
    #: Whether `prepare` may ask for the safety rows.
    needs_rows: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    #: Its distance to the aligned model's outputs, unless `teacher_divergence` names another; None where it has none.
    divergence: ClassVar[str | None] = None
    #: Whether it adds to the loss, and so takes a weight.
    has_loss: ClassVar[bool] = True

    @classmethod
    def divergence_of(cls, args: Any) -> str | None:
        """Its distance to the aligned model's outputs in a run of these settings; None where it has none."""
        return None if cls.divergence is None else args.teacher_divergence or cls.divergence

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """What it keeps beside the model: asked by `safe-sft plan`, before anything is loaded."""
        return []

    def prepare(self, setup: Preparation) -> None:  # noqa: B027
        """Read what is needed off the aligned model, before training."""

    @abstractmethod
    def loss(self, step: StepContext) -> Tensor | None:
        """This micro-step's contribution to the term of its optimizer step: a scalar, or None for nothing."""

    def after_step(self, model: nn.Module) -> None:  # noqa: B027
        """Follow the weights, after each optimizer step."""

    def deployed(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside, `model` has the weights that are to be saved and measured; afterwards the trained ones again."""
        return nullcontext()

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run cannot recompute; saved with every checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027
        """Take what `state_dict` gave."""


class WeightAnchor(SafetyMethod):
    """A quadratic penalty that ties the weights to the aligned ones; counted once per optimizer step."""

    reads = frozenset({"importance_space"})
    _space: AnchoredSpace

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """The anchors; none where they are zero."""
        anchors = _sizes(outline).anchors
        return [Kept("anchors", anchors)] if anchors else []

    def prepare(self, setup: Preparation) -> None:
        """Anchor the model where it is."""
        self._space = anchor_space(setup.model, setup.args.importance_space)

    @property
    def space(self) -> str:
        """Name of the space that the penalty is taken over."""
        return self._space.name

    def penalty(self) -> Tensor:
        """The penalty at the weights as they are now: a scalar."""
        return self._space.penalty()

    def loss(self, step: StepContext) -> Tensor | None:
        """The penalty, in the first micro-step alone: the weights do not change before the last."""
        return self.penalty() if step.first_micro_step else None

    def state_dict(self) -> dict[str, Tensor]:
        """The anchors."""
        return self._space.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the anchors."""
        self._space.load_state_dict(state)


def _sizes(outline: Outline) -> SpaceSizes:
    return space_sizes(outline.model, outline.trainable, outline.args.importance_space, fresh=outline.fresh)


class ImportanceAnchor(WeightAnchor):
    """A weight anchor that holds each weight as tightly as it matters for the safety rows."""

    reads = WeightAnchor.reads | {"importance_normalization", "importance_path", "replay_max_new_tokens"}
    needs_rows = True

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """The anchors, the importance in float32, and its file in bfloat16."""
        sizes = _sizes(outline)
        return [
            *super().keeps(outline),
            Kept("importance", 4 * (sizes.importance + sizes.roots)),
            Kept("importance file, without its header", 2 * sizes.importance, where="disk"),
        ]

    @abstractmethod
    def estimator(self, args: Any) -> str:
        """How importance is estimated."""

    def prepare(self, setup: Preparation) -> None:
        """Anchor the model where it is, and load or estimate the importance of its weights."""
        super().prepare(setup)
        args, model, tokenizer = setup.args, setup.model, setup.tokenizer
        estimator = self.estimator(args)
        if args.importance_path is not None:
            importance = load_importance(args.importance_path, model, tokenizer, self._space, estimator=estimator)
        else:
            rows = setup.rows()
            with placed(model, args.device):
                importance = build_importance(
                    model,
                    tokenizer,
                    self._space,
                    rows,
                    estimator=estimator,
                    batch_size=args.per_device_train_batch_size,
                    seed=args.seed,
                    autocast=setup.autocast,
                    checkpointing=args.gradient_checkpointing,
                )
        self._space.weigh(importance.normalized(args.importance_normalization).tensors)


class Replay(SafetyMethod):
    """A loss on replayed safety rows: the mean over the supervised tokens of the whole optimizer step."""

    reads = frozenset({"per_device_replay_batch_size", "replay_max_new_tokens"})
    needs_replay = True

    @abstractmethod
    def token_losses(self, replay: TokenStates) -> Tensor:
        """The loss of each supervised token: `(tokens,)`."""

    def loss(self, step: StepContext) -> Tensor | None:
        """This micro-step's part of the mean over the optimizer step's replayed tokens."""
        assert step.replay is not None
        return self.token_losses(step.replay).sum() * step.replay_token_share


class Distillation(SafetyMethod):
    """A loss on the task rows against the aligned model: the mean over the step's supervised task tokens."""

    needs_task_states = True

    @abstractmethod
    def token_losses(self, task: TokenStates) -> Tensor:
        """The loss of each supervised token: `(tokens,)`."""

    def loss(self, step: StepContext) -> Tensor | None:
        """This micro-step's part of the mean over the optimizer step's task tokens."""
        assert step.task is not None
        return self.token_losses(step.task).sum() * step.task_token_share
