"""Finds out before training whether a model shows its hidden states, and takes replayed rows along."""

from typing import Any

import torch
from torch import nn

from ..data import TokenizedRow
from ..data.batch import ReplayBatch
from ..models.modes import without_dropout
from ..models.parts import base_model
from .joint import HiddenStateTap


@torch.no_grad()
def can_join(tap: HiddenStateTap, model: nn.Module, *, must_join: bool) -> bool:
    """Run one row through the model's own forward, alone and with a replayed row beside it.

    Args:
        tap: reads the hidden states off the model's backbone.
        model: the whole model, which is not changed.
        must_join: whether a replayed row cannot take a forward of its own.

    Returns:
        Whether replayed rows can join the task's forward; otherwise they take one of their own.

    Raises:
        ValueError: when the hidden states cannot be read, or rows must join and cannot.
    """
    device = next(model.parameters()).device
    replay = ReplayBatch.of([TokenizedRow([0, 0, 0], [-100, 0, 0])], [0], device)
    inputs: dict[str, Any] = {**replay.padded(0), "use_cache": False}
    with without_dropout(model):
        try:
            tap.forward_rows(model, replay)
        except _FAILURES as error:
            raise _refusal(model, "its hidden states cannot be read", error) from error
        try:
            with tap.listening(replay, task=True):
                model(**inputs)
            tap.replay_hidden()
        except _FAILURES as error:
            if must_join:
                raise _refusal(
                    model, "replayed rows cannot join a forward of the task, as they must here", error
                ) from error
            return False
    return True


_FAILURES = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


def _refusal(model: nn.Module, reason: str, error: Exception) -> Exception:
    if isinstance(error, torch.OutOfMemoryError):
        return error
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    return ValueError(
        f"{type(base_model(model)).__name__}: {reason} ({said}). Choose a method that reads weights alone, such as "
        "`l2`, or train another architecture."
    )
