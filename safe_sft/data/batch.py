"""Replayed rows as tensors, padded or flattened, with the positions whose predictions are supervised."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .tokenization import TokenizedRow


@dataclass(frozen=True)
class ReplayBatch:
    """The rows of one micro-step on one rank.

    Attributes:
        rows: index of each row in the safety set.
        input_ids: token ids, one `(length,)` tensor for each row.
        targets: `(tokens,)`, the supervised tokens of all rows, row by row.
        predictors: for each target, the row in the batch and the position that predicts it.
        device: device on which tensors are made.
    """

    rows: tuple[int, ...]
    input_ids: tuple[Tensor, ...]
    targets: Tensor
    predictors: tuple[tuple[int, int], ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of(cls, tokenized: Sequence[TokenizedRow], rows: Sequence[int], device: torch.device) -> "ReplayBatch":
        """Make the batch of these rows of the safety set."""
        chosen = [tokenized[row] for row in rows]
        predictors = tuple(
            (k, position)
            for k, row in enumerate(chosen)
            for position in range(len(row.labels) - 1)
            if row.labels[position + 1] != -100
        )
        targets = torch.tensor([chosen[k].labels[position + 1] for k, position in predictors], dtype=torch.long)
        ids = tuple(torch.tensor(row.input_ids, dtype=torch.long) for row in chosen)
        return cls(tuple(rows), ids, targets.to(device, non_blocking=True), predictors, device)

    @property
    def width(self) -> int:
        """Number of tokens of the longest row."""
        return max(len(ids) for ids in self.input_ids)

    @property
    def tokens(self) -> int:
        """Number of tokens of all rows, prompts included."""
        return sum(len(ids) for ids in self.input_ids)

    def padded(self, pad_token_id: int, width: int | None = None) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, `(rows, width)`, padded on the right."""
        width = width or self.width
        ids = torch.full((len(self.input_ids), width), pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for k, row in enumerate(self.input_ids):
            ids[k, : len(row)] = row
            mask[k, : len(row)] = 1
        return {"input_ids": self._on_device(ids), "attention_mask": self._on_device(mask)}

    def flattened(self) -> dict[str, Tensor]:
        """Return `input_ids` and `position_ids`, `(1, tokens)`, with the rows one after the other."""
        positions = torch.cat([torch.arange(len(ids)) for ids in self.input_ids])
        return {
            "input_ids": self._on_device(torch.cat(self.input_ids)[None]),
            "position_ids": self._on_device(positions[None]),
        }

    def padded_index(self, width: int) -> Tensor:
        """Return, as `(tokens,)`, where the predicting hidden states lie in a flat `(rows · width)` axis."""
        return self._on_device(torch.tensor([k * width + position for k, position in self.predictors]))

    def flattened_index(self) -> Tensor:
        """Return, as `(tokens,)`, where the predicting hidden states lie in the flattened `(tokens)` axis."""
        starts = [0]
        for ids in self.input_ids:
            starts.append(starts[-1] + len(ids))
        return self._on_device(torch.tensor([starts[k] + position for k, position in self.predictors]))

    def _on_device(self, tensor: Tensor) -> Tensor:
        """Copy `tensor` to the device, without waiting for the work that is queued there."""
        return tensor.to(self.device, non_blocking=True)


def places_in_answers(predictors: Tensor) -> Tensor:
    """Return the place of each supervised token in its answer, from 0: a run of supervised tokens is one answer.

    Args:
        predictors: positions that predict the supervised tokens, in order, in the flat `(rows · width)` axis of a
            batch, `(tokens,)`. The last position of a row predicts nothing, and of a flattened row the first token of
            an example is not supervised, so the answers of two rows never touch.

    Returns:
        `(tokens,)`, whole numbers.
    """
    number = torch.arange(len(predictors), device=predictors.device)
    begins = torch.ones_like(number, dtype=torch.bool)
    begins[1:] = predictors[1:] != predictors[:-1] + 1
    return number - torch.where(begins, number, 0).cummax(0).values
