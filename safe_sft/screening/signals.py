"""What the aligned model says of an exchange: one forward over it, and a few tokens of refusal forced behind it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data.batch import ReplayBatch
from ..data.tokenization import TokenizedRow
from ..losses import token_cross_entropy
from ..models.generation import length_sorted_batches
from ..models.parts import LogitHead, backbone
from .openings import Openings
from .rows import TokenizedExchange

#: Tokens of an answer that its beginning is judged by.
BEGINNING = 8
#: Exchanges that the two ways to force refusals are compared on, and how far they may differ, in nats and as a share.
_COMPARED, _ABSOLUTE, _RELATIVE = 4, 0.1, 0.05


class Signals(NamedTuple):
    """What is read off the model for an exchange.

    Attributes:
        refusal: log-probability that the model opens with one of its refusals, in nats.
        answer_nll: mean negative log-likelihood of the answer's tokens, in nats per token.
        beginning_nll: the same of its first `BEGINNING` tokens.
        state: mean of the last hidden states of the request, `(d,)`, float32, on the CPU.
    """

    refusal: float
    answer_nll: float
    beginning_nll: float
    state: Tensor


class Reader:
    """Runs exchanges through a model's backbone; the model is without dropout meanwhile.

    Refusals are forced behind the request by the keys and values that the exchange left, so that it runs once. Where
    a model keeps something else of what it has read, requests run again with each opening.

    Args:
        model: the aligned model, on its device.
        pad_token_id: token id that pads the shorter rows of a batch.
        openings: how the model begins a refusal.
        batch_size: exchanges at a time.
    """

    def __init__(self, model: nn.Module, pad_token_id: int, openings: Openings, batch_size: int):
        self._backbone, self._head = backbone(model), LogitHead.of(model).gathered()
        self._device = next(model.parameters()).device
        self._pad, self._openings, self._batch_size = pad_token_id, openings, batch_size
        self.shares_requests = True

    @torch.no_grad()
    def choose_way(self, exchanges: Sequence[TokenizedExchange]) -> None:
        """Find out, on a few exchanges, whether the keys and values that an exchange leaves can be gone on with.

        Args:
            exchanges: exchanges of several lengths.
        """
        few = sorted(exchanges, key=lambda one: len(one.row.input_ids))
        few = few[:: max(1, len(few) // _COMPARED)][:_COMPARED]
        try:
            shared = self._read_batch(few)
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):  # whatever a model's own cache lacks
            self.shares_requests = False
            return
        plain = self._again([one.request for one in few])
        self.shares_requests = all(
            abs(one.refusal - other) <= _ABSOLUTE + _RELATIVE * abs(other)
            for one, other in zip(shared, plain, strict=True)
        )

    @torch.no_grad()
    def read(self, exchanges: Sequence[TokenizedExchange]) -> list[Signals]:
        """Return the signals of each exchange, in order; batches hold exchanges of similar length."""
        found: dict[int, Signals] = {}
        for places in length_sorted_batches([len(one.row.input_ids) for one in exchanges], self._batch_size):
            found |= zip(places, self._read_batch([exchanges[place] for place in places]), strict=True)
        return [found[place] for place in range(len(exchanges))]

    def _read_batch(self, exchanges: Sequence[TokenizedExchange]) -> list[Signals]:
        rows, requests = [one.row for one in exchanges], [one.request for one in exchanges]
        batch, output = self._forward(rows, use_cache=self.shares_requests)
        states = output.last_hidden_state
        losses, means = self._losses(rows, batch, states), _means(states, list(map(len, requests)))
        refusals = self._behind(requests, states, output) if self.shares_requests else self._again(requests)
        return [
            Signals(refusal, loss.mean().item(), loss[:BEGINNING].mean().item(), mean)
            for refusal, loss, mean in zip(refusals, losses, means, strict=True)
        ]

    def _behind(self, requests: Sequence[Sequence[int]], states: Tensor, output: Any) -> list[float]:
        """Return the log-probability of all openings together, from the keys and values of the requests.

        The answers, whose keys and values lie behind those of the requests, are masked.
        """
        width, cache = states.size(1), output.past_key_values
        lengths = torch.tensor(list(map(len, requests)), device=self._device)
        mask = (torch.arange(width, device=self._device) < lengths[:, None]).long()
        last = states[torch.arange(len(requests), device=states.device), lengths.to(states.device) - 1]
        joint = []
        for opening in self._openings.tokens:
            forced = torch.tensor(opening[:-1], device=self._device).expand(len(requests), -1)
            steps = torch.arange(forced.size(1), device=self._device)
            new = self._backbone(
                input_ids=forced,
                attention_mask=torch.cat([mask, torch.ones_like(forced)], 1),
                position_ids=lengths[:, None] + steps,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            cache.crop(-forced.size(1))
            hidden = torch.cat([last[:, None], new], 1).flatten(0, 1).to(self._head.weight.device)
            targets = torch.tensor(opening, device=hidden.device).repeat(len(requests))
            joint.append(-token_cross_entropy(hidden, self._head, targets).view(len(requests), -1).double().sum(-1))
        return torch.stack(joint).logsumexp(0).tolist()

    def _again(self, requests: Sequence[Sequence[int]]) -> list[float]:
        """Return the same from whole rows of request and opening."""
        rows = [
            TokenizedRow([*request, *opening], [-100] * len(request) + list(opening))
            for opening in self._openings.tokens
            for request in requests
        ]
        found: list[Tensor] = []
        for start in range(0, len(rows), len(requests)):
            part = rows[start : start + len(requests)]
            batch, output = self._forward(part, use_cache=False)
            found.append(torch.stack([-loss.sum() for loss in self._losses(part, batch, output.last_hidden_state)]))
        return torch.stack(found).logsumexp(0).tolist()

    def _forward(self, rows: Sequence[TokenizedRow], *, use_cache: bool) -> tuple[ReplayBatch, Any]:
        batch = ReplayBatch.of(rows, range(len(rows)), self._device)
        return batch, self._backbone(**batch.padded(self._pad), use_cache=use_cache)

    def _losses(self, rows: Sequence[TokenizedRow], batch: ReplayBatch, states: Tensor) -> list[Tensor]:
        """Return the losses of each row's labelled tokens, in nats, on the CPU; logits exist for tiles alone."""
        index = batch.padded_index(states.size(1)).to(states.device)
        hidden = states.reshape(-1, states.size(-1)).index_select(0, index).to(self._head.weight.device)
        losses = token_cross_entropy(hidden, self._head, batch.targets.to(hidden.device))
        return list(losses.double().cpu().split([row.supervised_tokens for row in rows]))


def _means(states: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Return the mean of the first states of each row, on the CPU, in float32."""
    wanted = torch.arange(states.size(1), device=states.device) < torch.tensor(lengths, device=states.device)[:, None]
    sums = torch.einsum("rtd,rt->rd", states.float(), wanted.float())
    return list((sums / wanted.sum(-1, keepdim=True)).cpu())
