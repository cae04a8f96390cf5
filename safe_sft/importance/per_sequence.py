"""Per-sequence gradients of linear layers, in batches: pure functions, and hooks that collect their inputs.

For a sequence with inputs `x_t` and output gradients `g_t`, the gradient of the weight is `Σ_t g_t x_tᵀ`. Both are at
hand in an ordinary backward pass over a batch, whether or not the weight itself is trained or even dense.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Per-sequence gradients are formed for about this many numbers at a time, at least one row of the weight: what a CPU
# keeps in its cache (8 MiB in float32), and what keeps an accelerator busy (64 MiB).
_TILE_ELEMENTS, _ACCELERATOR_TILE_ELEMENTS = 2**21, 2**24

#: Takes a layer's inputs and output gradients.
Sink = Callable[[Tensor, Tensor], None]


def power(gradient: Tensor, exponent: int) -> Tensor:
    """Replace `gradient` by `gradient²` or `|gradient|`, in place."""
    return gradient.square_() if exponent == 2 else gradient.abs_()


def _per_sequence(inputs: Tensor, gradients: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Compute per-sequence gradients of the weight, tile by tile, each in the same memory.

    Yields:
        A slice of the weight's rows, and their gradients `(sequences, rows, d_in)` for some of the sequences.
    """
    elements = _TILE_ELEMENTS if inputs.device.type == "cpu" else _ACCELERATOR_TILE_ELEMENTS
    d_in, d_out = inputs.size(2), gradients.size(2)
    height = min(d_out, max(1, elements // d_in))
    step = min(len(inputs), max(1, elements // (d_in * height)))
    memory = inputs.new_empty(step * height * d_in)
    for x, g in zip(inputs.split(step), gradients.split(step), strict=True):
        for start in range(0, d_out, height):
            rows = slice(start, min(start + height, d_out))
            shape = (len(x), rows.stop - start, d_in)
            yield rows, torch.bmm(g[..., rows].mT, x, out=memory[: math.prod(shape)].view(shape))


def summed_powers(inputs: Tensor, gradients: Tensor, exponent: int) -> Tensor:
    """Sum the per-sequence gradients of a weight, squared or in absolute value, over the sequences.

    Args:
        inputs: inputs of the layer, `(sequences, tokens, d_in)`.
        gradients: gradients of the layer's outputs, `(sequences, tokens, d_out)`.
        exponent: 2 for squares, 1 for absolute values.

    Returns:
        `(d_out, d_in)`.
    """
    shape = (gradients.size(2), inputs.size(2))
    total = inputs.new_zeros(shape)
    for rows, per_sequence in _per_sequence(inputs, gradients):
        if exponent == 2 and len(per_sequence) == 1:
            total[rows].addcmul_(per_sequence[0], per_sequence[0])
        else:
            total[rows] += power(per_sequence, exponent).sum(0)
    return total


def summed_power_margins(inputs: Tensor, gradients: Tensor, exponent: int) -> tuple[Tensor, Tensor]:
    """Compute the row and column sums of `summed_powers`, exactly, in the cheaper of two ways.

    Squares need only the `tokens × tokens` Gram matrices of inputs and gradients,
    `Σ_j (Σ_t g_ti x_tj)² = [gᵀ (x xᵀ) g]_ii`; where these cost more than the gradient itself (sequences longer than
    the layer is wide), and for absolute values, which have no such form, the gradient is formed, a tile at a time.

    Args:
        inputs: inputs of the layer, `(sequences, tokens, d_in)`.
        gradients: gradients of the layer's outputs, `(sequences, tokens, d_out)`.
        exponent: 2 for squares, 1 for absolute values.

    Returns:
        `(d_out,)` and `(d_in,)`.
    """
    tokens, d_in, d_out = inputs.size(1), inputs.size(2), gradients.size(2)
    if exponent == 2 and 2 * tokens * (d_in + d_out) <= d_in * d_out:
        rows = (((inputs @ inputs.mT) @ gradients) * gradients).sum((0, 1))
        columns = (((gradients @ gradients.mT) @ inputs) * inputs).sum((0, 1))
        return rows.clamp_min_(0), columns.clamp_min_(0)  # rounding may leave a 0 a little below
    rows, columns = inputs.new_zeros(d_out), inputs.new_zeros(d_in)
    for tile, per_sequence in _per_sequence(inputs, gradients):
        powers = power(per_sequence, exponent)
        rows[tile] += powers.sum(2).sum(0)
        flat = powers.flatten(0, 1)
        columns += flat.new_ones(len(flat)) @ flat
    return rows, columns


def summed_bias_powers(gradients: Tensor, exponent: int) -> Tensor:
    """Sum the per-sequence gradients of a bias, squared or in absolute value, over the sequences.

    Args:
        gradients: gradients of the layer's outputs, `(sequences, tokens, d_out)`.
        exponent: 2 for squares, 1 for absolute values.

    Returns:
        `(d_out,)`.
    """
    return power(gradients.sum(1), exponent).sum(0)


class _Watch(torch.autograd.Function):
    """The identity; its backward pass hands the layer's input and output gradient to a callback, the sink.

    The input is kept with `save_for_backward`, so that gradient checkpointing drops and recomputes it as any other
    activation, and each forward is seen once however often it is recomputed.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, inputs: Tensor, sink: Sink) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.sink = sink
        return output.clone()  # a view would forbid the model to go on in place

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        ctx.sink(*ctx.saved_tensors, grad_outputs[0])
        return grad_outputs[0], None, None


@contextmanager
def watched(layers: Iterable[tuple[nn.Module, Sink]]) -> Iterator[None]:
    """Inside this context, a backward pass hands each layer's inputs and output gradients to its sink."""

    def attach(module: nn.Module, sink: Sink) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return _Watch.apply(output, args[0].detach(), sink) if output.requires_grad else None

        return module.register_forward_hook(hook)

    handles = [attach(module, sink) for module, sink in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
