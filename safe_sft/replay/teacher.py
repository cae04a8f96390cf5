"""Where the aligned model's hidden states of replayed rows come from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..data.batch import ReplayBatch
from ..models.adapters import adapter_disabled
from ..models.modes import without_dropout
from .cache import TeacherCache
from .joint import HiddenStateTap


def teacher_kind(teacher: str | None, teacher_cache: str | None, *, switchable: bool) -> str:
    """Which teacher a run has: by default the one that stores nothing, where it is exact.

    Args:
        teacher: the setting `teacher`: `online`, `cached`, or None for the default.
        teacher_cache: the setting `teacher_cache`; a cache that is named is used.
        switchable: whether the model with its adapter switched off is the aligned one.

    Returns:
        `online` or `cached`.
    """
    return teacher or ("online" if switchable and teacher_cache is None else "cached")


class Teacher(ABC):
    """The aligned model, as far as replay needs it."""

    #: As `teacher_kind` and the setting `teacher` say it.
    kind: ClassVar[str]

    @abstractmethod
    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """`(tokens, d)`: the aligned model's states that predict `replay.targets`, without gradient."""


class OnlineTeacher(Teacher):
    """The model itself with its adapter switched off: nothing is stored.

    Args:
        tap: on the model's backbone.
    """

    kind = "online"

    def __init__(self, tap: HiddenStateTap):
        self._tap = tap

    @torch.no_grad()
    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """One forward of the replayed rows with the adapter disabled."""
        with adapter_disabled(model), without_dropout(model):
            return self._tap.forward_rows(model, replay)

    @torch.no_grad()
    def task_hidden(self, model: nn.Module, inputs: Mapping[str, Any], index: Tensor) -> Tensor:
        """`(tokens, d)`: the same of a task batch, at `index` of its flat `(rows · width)` axis."""
        with adapter_disabled(model), without_dropout(model):
            return self._tap.forward(model, inputs, index)


class CachedTeacher(Teacher):
    """States computed once, before training.

    Args:
        cache: of all safety rows.
    """

    kind = "cached"

    def __init__(self, cache: TeacherCache):
        self._cache = cache

    @property
    def folder(self) -> Path:
        """Where the states are."""
        return self._cache.folder

    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """Look the rows up."""
        return self._cache.rows(replay.rows).to(replay.device, non_blocking=True)
