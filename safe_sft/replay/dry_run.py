"""Finds out before training whether a model shows its hidden states, and takes replayed rows along."""

import torch
from torch import Tensor, nn

from ..data import TokenizedRow
from ..data.batch import ReplayBatch
from ..models.modes import without_dropout
from ..models.parts import LogitHead, base_model, vocabulary_size
from .joint import HiddenStateTap

#: Largest difference, as a share of the largest number, that rounding in bf16 explains.
_ROUNDING = 0.05
_LAYOUTS = ("padded", "flattened")


@torch.no_grad()
def joinable_layouts(tap: HiddenStateTap, model: nn.Module, needed: str | None = None) -> set[str]:
    """Run a row through the model's own forward, alone and behind another one, in both layouts of a batch.

    Args:
        tap: reads the hidden states off the model's backbone.
        model: the whole model, which is not changed.
        needed: the layout in which replayed rows must join, because they cannot take a forward of their own.

    Returns:
        In which layouts, `padded` and `flattened`, replayed rows can join the task's forward: their states are then
        those that they have alone. In the others they take a forward of their own.

    Raises:
        ValueError: when the hidden states cannot be read, when the logits are more than the head's of them, or when
            rows must join and cannot.
    """
    device = next(model.parameters()).device
    size = vocabulary_size(model)
    task, replay = (ReplayBatch.of([_row(first, size)], [0], device) for first in (1, 5))
    with without_dropout(model):
        try:
            alone = tap.forward_rows(model, replay)
            logits = model(**{**replay.padded(0), "use_cache": False}).logits[0, :-1]
        except _FAILURES as error:
            raise _refusal(model, "its hidden states cannot be read", error) from error
        _require_head(model, alone, logits)
        joinable = set()
        for layout in _LAYOUTS:
            try:
                with tap.listening(replay, task=True):
                    model(**{**(task.padded(0) if layout == "padded" else task.flattened()), "use_cache": False})
                _require_same(tap.replay_hidden(), alone)
            except _FAILURES as error:
                if layout == needed:
                    reason = f"replayed rows cannot join a {layout} forward of the task, as they must here"
                    raise _refusal(model, reason, error) from error
                continue
            joinable.add(layout)
    return joinable


def _row(first: int, size: int) -> TokenizedRow:
    ids = [(first + place) % size for place in range(4)]
    return TokenizedRow(ids, [-100, *ids[1:]])


def _require_head(model: nn.Module, hidden: Tensor, logits: Tensor) -> None:
    """Check that the model's logits are its head's of its last hidden states, which methods rely on."""
    head = LogitHead.of(model).gathered().to(hidden.device)
    try:
        _require_same(head.logits(hidden), logits.to(hidden.device))
    except (RuntimeError, ValueError) as error:
        reason = "its logits are not those of its head on its last hidden states; something stands between them"
        raise _refusal(model, reason, error) from error


def _require_same(found: Tensor, expected: Tensor) -> None:
    found, expected = found.float(), expected.float()
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    share = float((found - expected).abs().max() / scale)
    if not share <= _ROUNDING:
        raise ValueError(f"they differ by {share:.0%}")


_FAILURES = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)


def _refusal(model: nn.Module, reason: str, error: Exception) -> Exception:
    if isinstance(error, torch.OutOfMemoryError):
        return error
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    return ValueError(
        f"{type(base_model(model)).__name__}: {reason} ({said}). Choose a method that reads weights alone, such as "
        "`l2`, or train another architecture."
    )
