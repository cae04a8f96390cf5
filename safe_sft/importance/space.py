"""What a weight penalty is taken over: where the weights were, how far they have moved, how much each matters."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

SPACES = ("adapter", "weight")


#: Prefix of importance among the anchors of a checkpoint.
_IMPORTANCE = "importance/"


def space_name(requested: str | None, *, adapted: bool, fresh: bool) -> str:
    """Return the name of the space that a penalty is taken over.

    Args:
        requested: the setting `importance_space`: `adapter`, `weight`, or None for the default.
        adapted: whether an adapter is trained, rather than the model in full.
        fresh: whether that adapter is new, so that the model without it is the aligned one.

    Returns:
        `weight` for a fresh LoRA, `adapter` for full tuning and for an adapter that was trained before.
    """
    return (requested or ("weight" if fresh else "adapter")) if adapted else "adapter"


class Slot(NamedTuple):
    """The place of a parameter in its module; wrapping for distribution puts another parameter there."""

    module: nn.Module
    leaf: str

    @property
    def parameter(self) -> Tensor:
        """The parameter as it is now."""
        return getattr(self.module, self.leaf)


class Layout(NamedTuple):
    """Shape and device of a tensor of importance."""

    shape: tuple[int, ...]
    device: torch.device


class AnchoredSpace(ABC):
    """Knows where the weights were before training, how far they have moved, and how much each matters."""

    name: ClassVar[str]

    @abstractmethod
    def penalty(self) -> Tensor:
        """Return `½ Σ ω (θ − θ*)²` over the space, a scalar with gradient; `ω` is 1 until `weigh` sets it."""

    @abstractmethod
    def size(self) -> float:
        """Return `Σ ω θ*²` over the space: how large the anchored weights are, in the unit of twice the penalty.

        Raises:
            ValueError: when the weights are kept in a form that cannot be read.
        """

    @abstractmethod
    def layout(self) -> dict[str, Layout]:
        """Return the names, shapes and devices of the tensors that `weigh` takes."""

    @abstractmethod
    def anchors(self) -> dict[str, Tensor]:
        """Return the whole anchors by parameter name, in the parameters' own dtype, which is lossless."""

    @abstractmethod
    def move_anchors(self) -> None:
        """Anchor the weights at their present values. Under FSDP2 every rank must call it."""

    @abstractmethod
    def weigh(self, importance: Mapping[str, Tensor]) -> None:
        """Take the importance `ω ≥ 0` of every weight.

        Raises:
            ValueError: when names or shapes differ from those of `layout`.
        """

    @abstractmethod
    def importance(self) -> dict[str, Tensor]:
        """Return the whole importance that `weigh` took; empty before."""

    @abstractmethod
    def _load_anchors(self, state: Mapping[str, Tensor]) -> None: ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return anchors and importance. Under FSDP2 every rank must call it."""
        return {**self.anchors(), **{f"{_IMPORTANCE}{name}": value for name, value in self.importance().items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the anchors and the importance of a checkpoint.

        Raises:
            ValueError: when the names or shapes are those of another model.
        """
        importance = {k.removeprefix(_IMPORTANCE): v for k, v in state.items() if k.startswith(_IMPORTANCE)}
        self._load_anchors({k: v for k, v in state.items() if not k.startswith(_IMPORTANCE)})
        if importance:
            self.weigh(importance)


def load_anchors(anchors: dict[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Put the tensors of `state` into `anchors`, name by name.

    Raises:
        ValueError: when names or shapes differ.
    """
    differing = _differing({name: tuple(anchor.shape) for name, anchor in anchors.items()}, state)
    if differing:
        raise ValueError(
            f"The anchors of the checkpoint are those of another model or adapter: {len(differing)} tensors differ in "
            f"name or shape, such as '{differing[0]}'. Resume with the model, LoRA layout and `importance_space` that "
            "the checkpoint was made with."
        )
    for name, value in state.items():
        anchors[name] = value.to(anchors[name].device, anchors[name].dtype)


def require_layout(layout: Mapping[str, Layout], importance: Mapping[str, Tensor]) -> None:
    """Check that `importance` has the names and shapes of `layout`.

    Raises:
        ValueError: when they differ from those of `layout`.
    """
    differing = _differing({name: at.shape for name, at in layout.items()}, importance)
    if differing:
        raise ValueError(
            f"The importance is that of another adapter layout: {len(differing)} of {len(layout)} tensors differ in "
            f"name or shape, such as '{differing[0]}'. Compute it with the target modules, `modules_to_save` and "
            "`importance_space` of this run."
        )


def _differing(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(
        name
        for name in {*shapes, *tensors}
        if name not in shapes or name not in tensors or shapes[name] != tuple(tensors[name].shape)
    )
