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
    """Choose the teacher of a run: by default the one that stores nothing, where it is exact.

    Args:
        teacher: the setting `teacher`: `online`, `cached`, or None for the default.
        teacher_cache: the setting `teacher_cache`; if it is set, the default is `cached`.
        switchable: whether the model with its adapter switched off is the aligned one.

    Returns:
        `online` or `cached`.
    """
    return teacher or ("online" if switchable and teacher_cache is None else "cached")


class Teacher(ABC):
    """The source of the aligned model's hidden states."""

    #: The value of the setting `teacher` that stands for this class.
    kind: ClassVar[str]

    @abstractmethod
    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """Return the aligned model's states that predict `replay.targets`, `(tokens, d)`, without gradient."""


class OnlineTeacher(Teacher):
    """The model itself with its adapter switched off: nothing is stored.

    Args:
        tap: reads the hidden states off the model's backbone.
    """

    kind = "online"

    def __init__(self, tap: HiddenStateTap):
        self._tap = tap

    @torch.no_grad()
    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """Run the replayed rows through one forward with the adapter switched off."""
        with adapter_disabled(model), without_dropout(model):
            return self._tap.forward_rows(model, replay)

    @torch.no_grad()
    def task_hidden(self, model: nn.Module, inputs: Mapping[str, Any], index: Tensor) -> Tensor:
        """Return the aligned model's states of a task batch, `(tokens, d)`, at `index` of its flat token axis."""
        with adapter_disabled(model), without_dropout(model):
            return self._tap.forward(model, inputs, index)


class CachedTeacher(Teacher):
    """States computed once, before training.

    Args:
        cache: the states of all safety rows.
    """

    kind = "cached"

    def __init__(self, cache: TeacherCache):
        self._cache = cache

    @property
    def folder(self) -> Path:
        """Folder of the states."""
        return self._cache.folder

    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """Read the states of the replayed rows from the cache."""
        return self._cache.rows(replay.rows).to(replay.device, non_blocking=True)
