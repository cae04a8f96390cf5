"""Estimates the importance of every weight of a space from safety rows, in batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.utils import reduce
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data import TokenizedRow
from ..models.generation import length_sorted_batches
from ..models.modes import checkpointed, without_dropout
from ..models.parts import base_model
from ..replay import ReplayBatch
from .batching import Batching
from .objective import ESTIMATORS, Objective
from .partial import PartialSums
from .per_sequence import Sink, power, summed_bias_powers, summed_power_margins, summed_powers, watched
from .space import AnchoredSpace

logger = get_logger(__name__)


@dataclass(frozen=True)
class Estimation:
    """How importance is estimated.

    Attributes:
        estimator: `empirical`, `sampled` or `mas`; see `Objective`.
        batch_size: rows at a time, on each rank.
        pad_token_id: fills the shorter rows of a batch.
        seed: seed of the answers that `sampled` draws.
        autocast: the precision in which the model runs; the sums are float32 in any.
        checkpointing: whether layers keep their inputs alone, and run again in the backward pass.
    """

    estimator: str
    batch_size: int
    pad_token_id: int = 0
    seed: int = 0
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    checkpointing: bool = False

    def objective(self, model: nn.Module) -> Objective:
        """Return the function whose gradients are taken."""
        return Objective(model, self.estimator, seed=self.seed, pad_token_id=self.pad_token_id, autocast=self.autocast)


def estimate_importance(
    model: nn.Module,
    space: AnchoredSpace,
    rows: Sequence[TokenizedRow],
    how: Estimation,
    partial: PartialSums | None = None,
) -> dict[str, Tensor]:
    """Take the mean over `rows` of the per-sequence gradient, squared or in absolute value, at the present weights.

    Each rank takes its share of the rows; the result is the same on all ranks. It is not normalised.

    Args:
        model: the model, on its device, not wrapped for distribution.
        space: the space of `model`'s weights.
        rows: safety rows.
        how: the estimator, and how the model runs.
        partial: unfinished sums on disk, from which a stopped estimation goes on.

    Returns:
        The importance, as tensors of `space.layout()`, in float32 (float64 for a float64 model).
    """
    state = PartialState()  # before anything is logged
    objective = how.objective(model)
    device = next(base_model(model).get_input_embeddings().parameters()).device

    def forward(batch: Sequence[int]) -> Tensor:
        return objective(ReplayBatch.of(rows, batch, device))

    with without_dropout(model), checkpointed(model) if how.checkpointing else nullcontext():
        batching = _try_out(model, space, rows, forward)
        sums = _zeros(space, model)
        batches = _share(rows, how.batch_size if batching.batched else 1)
        _accumulate(model, batching, sums, batches, forward, ESTIMATORS[how.estimator], partial)
    if state.num_processes > 1:
        sums = {name: reduce(value, "sum") for name, value in sums.items()}
    return {name: value / len(rows) for name, value in sums.items()}


def _try_out(
    model: nn.Module, space: AnchoredSpace, rows: Sequence[TokenizedRow], forward: Callable[[Sequence[int]], Tensor]
) -> Batching:
    """Find the batching by a forward of the shortest row, twice; a log line says what it costs."""
    batching = Batching.of(space, model)
    shortest = min(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    batching.exclude_irregular(model, lambda: forward([shortest, shortest]))
    if not batching.batched:
        _say_unbatched(batching)
    return batching


def _share(rows: Sequence[TokenizedRow], batch_size: int) -> list[list[int]]:
    """Return this rank's rows, in batches of similar length."""
    mine = range(PartialState().process_index, len(rows), PartialState().num_processes)
    lengths = [len(rows[i].input_ids) for i in mine]
    return [[mine[i] for i in batch] for batch in length_sorted_batches(lengths, batch_size)]


def _accumulate(
    model: nn.Module,
    batching: Batching,
    sums: dict[str, Tensor],
    batches: list[list[int]],
    forward: Callable[[Sequence[int]], Tensor],
    exponent: int,
    partial: PartialSums | None,
) -> None:
    start = partial.load(sums) if partial else 0
    with ExitStack() as stack:
        stack.enter_context(_frozen(model, [slot.parameter for slot in batching.rest.values()]))
        stack.enter_context(_input_requires_grad(model))
        sinks = [*_pair_sinks(batching, sums, exponent), *_linear_sinks(batching, sums, exponent)]
        stack.enter_context(watched(sinks))
        total = sum(map(len, batches))
        bar = stack.enter_context(
            tqdm(total=total, desc="Estimating importance", disable=not PartialState().is_main_process)
        )
        bar.update(sum(map(len, batches[:start])))
        for done, batch in enumerate(batches[start:], start + 1):
            with torch.enable_grad():
                forward(batch).backward()
            for name, slot in batching.rest.items():
                if slot.parameter.grad is not None:
                    sums[name] += power(slot.parameter.grad.to(sums[name].dtype), exponent)
                    slot.parameter.grad = None
            bar.update(len(batch))
            if partial:
                partial.step(sums, done)


def _pair_sinks(batching: Batching, sums: dict[str, Tensor], exponent: int) -> Iterator[tuple[nn.Module, Sink]]:
    for pair in batching.pairs:

        def sink(x: Tensor, g: Tensor, name: str = pair.name) -> None:
            x, g = _as_sequences(x, g, sums[f"{name}.rows"], batching.batched)
            rows, columns = summed_power_margins(x, g, exponent)
            sums[f"{name}.rows"] += rows
            sums[f"{name}.columns"] += columns

        yield pair.layer, sink


def _linear_sinks(batching: Batching, sums: dict[str, Tensor], exponent: int) -> Iterator[tuple[nn.Module, Sink]]:
    for module, names in batching.linear.items():

        def sink(x: Tensor, g: Tensor, names: dict[str, str] = names) -> None:
            x, g = _as_sequences(x, g, sums[next(iter(names.values()))], batching.batched)
            if "weight" in names:
                sums[names["weight"]] += summed_powers(x, g, exponent)
            if "bias" in names:
                sums[names["bias"]] += summed_bias_powers(g, exponent)

        yield module, sink


def _as_sequences(x: Tensor, g: Tensor, like: Tensor, batched: bool) -> tuple[Tensor, Tensor]:
    """Shape `(sequences, tokens, d)` in the dtype of the sums; without batches, all tokens are one sequence."""
    sequences = x.size(0) if batched else 1
    return (
        x.reshape(sequences, -1, x.size(-1)).to(like.dtype),
        g.reshape(sequences, -1, g.size(-1)).to(like.dtype),
    )


def _zeros(space: AnchoredSpace, model: nn.Module) -> dict[str, Tensor]:
    dtypes = {p.dtype for p in model.parameters()}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    return {name: torch.zeros(at.shape, dtype=dtype, device=at.device) for name, at in space.layout().items()}


def _say_unbatched(batching: Batching) -> None:
    if batching.rest:
        first = next(iter(batching.rest))
        reason = f"{len(batching.rest)} trained parameters are not weights of linear layers, such as '{first}'"
    else:
        reason = "some layers do not see the sequences of a batch apart"
    logger.warning(f"Importance is estimated one sequence at a time, which is slower: {reason}.")


@contextmanager
def _frozen(model: nn.Module, but: list[Tensor]) -> Iterator[None]:
    """Inside this context, only `but` has gradients."""
    keep = {id(parameter) for parameter in but}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in keep]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


@contextmanager
def _input_requires_grad(model: nn.Module) -> Iterator[None]:
    """Inside this context, a backward pass reaches every layer, though no parameter needs a gradient."""

    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        if not output.requires_grad:
            output.requires_grad_(True)

    handle = base_model(model).get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
