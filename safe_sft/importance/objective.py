"""The objective whose gradient gives importance: the answers' likelihood (EWC) or the logits' size (MAS)."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import (
    draw_tokens,
    sampled_tokens,
    squared_logit_distance,
    tiled_squared_logit_distance,
    token_cross_entropy,
)
from ..models.parts import LogitHead, backbone, base_model
from ..replay import ReplayBatch

#: Estimators, and the power of the per-sequence gradient that each averages.
ESTIMATORS = {"empirical": 2, "sampled": 2, "mas": 1}


class Objective:
    """The sum over a batch of each sequence's objective, from one forward.

    `empirical` is `−log p(answer)`, in nats, summed over the answer's tokens; `sampled` the same with every answer
    token drawn from the model, given the tokens before it in the row; `mas` the mean of `‖logits‖²` over the positions
    that predict the answer. Logits are built only for a head that is trained, adapted or in float64.

    Args:
        model: the model, in the state in which it is measured.
        estimator: one of `ESTIMATORS`.
        seed: seed of the drawn answers; they do not depend on the batch that a row is in.
        pad_token_id: token id that pads the shorter rows of a batch.
        autocast: the precision in which the model runs.
    """

    def __init__(
        self,
        model: nn.Module,
        estimator: str,
        *,
        seed: int,
        pad_token_id: int,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):
        self._model = model
        self._estimator = estimator
        self._autocast = autocast
        self._seed = seed
        self._pad_token_id = pad_token_id
        self._module = base_model(model).get_output_embeddings()
        self._head = LogitHead.of(model)
        # TRL's cross-entropy sums in float32 whatever it is given.
        exact = estimator == "mas" or self._head.weight.dtype != torch.float64
        self._plain = type(self._module) is nn.Linear and not self._head.trained and exact
        # The distance from zero logits, which a bias would move.
        of_distances = self._plain and estimator == "mas" and self._head.bias is None and self._head.spares_logits
        self._gram = self._head.gram() if of_distances else None

    def __call__(self, batch: ReplayBatch) -> Tensor:
        """Return the objective summed over the rows of `batch`: a scalar with gradient."""
        inputs = batch.padded(self._pad_token_id)
        with self._autocast():
            states = backbone(self._model)(**inputs, use_cache=False).last_hidden_state
            logits = None if self._plain else self._module(states)
        index = batch.padded_index(states.size(1)).to(states.device)
        if logits is None:
            hidden = states.reshape(-1, states.size(-1)).index_select(0, index)
            return self._of_hidden(hidden.to(self._head.weight.device), batch)  # of a split model, it may be another
        return self._of_logits(logits.reshape(-1, logits.size(-1)).index_select(0, index), batch)

    def _of_hidden(self, hidden: Tensor, batch: ReplayBatch) -> Tensor:
        head = self._head
        if self._estimator == "mas":
            return (self._squared_norms(hidden, head) * _mean_weights(batch, hidden)).sum()
        targets = batch.targets.to(hidden.device)
        if self._estimator == "sampled":
            targets = sampled_tokens(hidden.detach(), head, self._uniform(batch))
        return token_cross_entropy(hidden, head, targets).sum()

    def _squared_norms(self, hidden: Tensor, head: LogitHead) -> Tensor:
        """Return `‖z‖²` of each token, computed as the distance from zero logits."""
        origin = torch.zeros_like(hidden)
        if self._gram is not None:
            return squared_logit_distance(hidden, origin, self._gram)
        return tiled_squared_logit_distance(hidden, head, origin, head.without_bias())

    def _of_logits(self, logits: Tensor, batch: ReplayBatch) -> Tensor:
        logits = self._head.scaled_and_capped(logits.to(torch.promote_types(logits.dtype, torch.float32)))
        if self._estimator == "mas":
            return (logits.square().sum(-1) * _mean_weights(batch, logits)).sum()
        targets = batch.targets.to(logits.device)
        if self._estimator == "sampled":
            targets = draw_tokens(logits.detach(), self._uniform(batch).to(logits.device))
        return F.cross_entropy(logits, targets, reduction="sum")

    def _uniform(self, batch: ReplayBatch) -> Tensor:
        """Draw a number in [0, 1) for each supervised token, row by row."""
        counts = _tokens_of_rows(batch)
        return torch.cat([_row_uniform(self._seed, row, n) for row, n in zip(batch.rows, counts, strict=True)])


def _row_uniform(seed: int, row: int, count: int) -> Tensor:
    digest = hashlib.sha256(f"{seed}:{row}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _tokens_of_rows(batch: ReplayBatch) -> list[int]:
    return torch.bincount(
        torch.tensor([k for k, _ in batch.predictors], dtype=torch.long), minlength=len(batch.rows)
    ).tolist()


def _mean_weights(batch: ReplayBatch, like: Tensor) -> Tensor:
    """Return `1 / tokens of the row` for each supervised token."""
    counts = torch.tensor(_tokens_of_rows(batch))
    return 1 / counts.repeat_interleave(counts).to(like)
