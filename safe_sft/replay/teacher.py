"""Where the aligned model's hidden states of replayed rows come from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..data.batch import ReplayBatch
from ..models.adapters import adapter_disabled
from ..models.modes import without_dropout
from .cache import TeacherCache
from .joint import HiddenStateTap
from .memory import TeacherMemory


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

    def replayed(
        self, model: nn.Module, replay: ReplayBatch, everyone: Sequence[Sequence[int]] | None = None
    ) -> Tensor:
        """Return the same for rows that are replayed in a micro-step, as the teacher remembers them.

        Args:
            model: the model in training.
            replay: the rows that this rank replays.
            everyone: the rows that each rank replays in this micro-step, where every rank must run the same number of
                forwards; None where each may run its own.
        """
        return self.hidden(model, replay)


class OnlineTeacher(Teacher):
    """The model itself with its adapter switched off.

    Args:
        tap: reads the hidden states off the model's backbone.
        memory: keeps the states of rows that were replayed; None computes them each time.
    """

    kind = "online"

    def __init__(self, tap: HiddenStateTap, memory: TeacherMemory | None = None):
        self._tap = tap
        self.memory = memory

    @torch.no_grad()
    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """Run the replayed rows through one forward with the adapter switched off."""
        with adapter_disabled(model), without_dropout(model):
            return self._tap.forward_rows(model, replay)

    def replayed(
        self, model: nn.Module, replay: ReplayBatch, everyone: Sequence[Sequence[int]] | None = None
    ) -> Tensor:
        """Look the replayed rows up in the memory, and run those that are not in it."""
        if self.memory is None:
            return self.hidden(model, replay)
        return self.memory.hidden(replay, partial(self.hidden, model), everyone)

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
