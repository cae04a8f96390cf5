"""Where the aligned model's hidden states of replayed rows come from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import ReplayBatch
from ..models.adapters import adapter_disabled
from ..models.modes import without_dropout
from .cache import TeacherCache
from .joint import HiddenStateTap


class Teacher(ABC):
    """The aligned model, as far as replay needs it."""

    @abstractmethod
    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """`(tokens, d)`: the aligned model's states that predict `replay.targets`, without gradient."""


class OnlineTeacher(Teacher):
    """The model itself with its adapter switched off: nothing is stored.

    Args:
        tap: on the model's backbone.
    """

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

    def __init__(self, cache: TeacherCache):
        self._cache = cache

    @property
    def folder(self) -> Path:
        """Where the states are."""
        return self._cache.folder

    def hidden(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """Look the rows up."""
        return self._cache.rows(replay.rows).to(replay.device, non_blocking=True)
