"""Distances, likelihoods and drawn tokens at each position, from last hidden states and the head.

Nothing here builds a `(tokens, vocab)` tensor.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .head import Head
from .precision import wide

# One tile of explicit logits holds at most this many numbers (32 MiB in float32).
_TILE_ELEMENTS = 2**23
_TILE_VOCAB = 2**14
# Columns of the tiles of TRL's kernels, whatever the vocabulary; their rows, up to 4096, are the tokens of a call. An
# accelerator wants more rows for its matrix products.
_KERNEL_VOCAB, _ACCELERATOR_KERNEL_ROWS = 2**15, 2**10


def _kernel_rows(hidden: Tensor) -> int:
    return max(1, _TILE_ELEMENTS // _KERNEL_VOCAB) if hidden.device.type == "cpu" else _ACCELERATOR_KERNEL_ROWS


def logit_gram(weight: Tensor) -> Tensor:
    """Compute the Gram matrix `WᵀW` of a language-model head.

    Args:
        weight: weight of the head, `(vocab, d)`.

    Returns:
        `(d, d)`, float32 (float64 for float64 weights).
    """
    rows = max(1, _TILE_ELEMENTS // weight.size(1))
    return sum((wide(tile).T @ wide(tile) for tile in weight.split(rows)), start=torch.zeros(()).to(weight.device))


def centred_logit_gram(weight: Tensor, live: Tensor) -> Tensor:
    """Compute the Gram matrix of a head whose rows are taken relative to their mean: `WᵀW − V·w̄w̄ᵀ`.

    Logits are defined up to a constant, so only what is left of them after their mean is taken away says anything.

    Args:
        weight: weight of the head, `(vocab, d)`.
        live: the words that count, `(vocab,)` of bool, from `live_words`.

    Returns:
        `(d, d)`, float32 (float64 for float64 weights).
    """
    rows = max(1, _TILE_ELEMENTS // weight.size(1))
    tiles = list(zip(weight.split(rows), live.split(rows), strict=True))
    mean = sum((wide(w)[here].sum(0) for w, here in tiles), start=torch.zeros(()).to(weight.device)) / live.sum()
    centred = ((wide(w) - mean) * here[:, None] for w, here in tiles)
    return sum((tile.T @ tile for tile in centred), start=torch.zeros(()).to(weight.device))


def live_words(weight: Tensor, words: int) -> Tensor:
    """Say which rows of a head belong to words: padding of the vocabulary lies after them, or is zero.

    Args:
        weight: weight of the head, `(vocab, d)`.
        words: number of tokens that the tokenizer has.

    Returns:
        `(vocab,)`, bool.
    """
    live = torch.arange(weight.size(0), device=weight.device) < words
    rows = max(1, _TILE_ELEMENTS // weight.size(1))
    return live & torch.cat([(tile != 0).any(-1) for tile in weight.split(rows)])


def squared_logit_distance(hidden: Tensor, teacher_hidden: Tensor, gram: Tensor) -> Tensor:
    """Compute `‖W h − W h₀‖²` of each token, exactly and without logits, where both have the same head.

    `‖W h − W h₀‖² = (h − h₀)ᵀ WᵀW (h − h₀)`. This is the distance of Dark Experience Replay (Buzzega et al. 2020,
    https://arxiv.org/abs/2004.07211, eq. 5), a sum over the vocabulary.

    Args:
        hidden: last hidden states of the student, `(tokens, d)`.
        teacher_hidden: last hidden states of the teacher, `(tokens, d)`.
        gram: Gram matrix of the head, `(d, d)`, from `logit_gram`.

    Returns:
        `(tokens,)`, squared logits.
    """
    difference = wide(hidden) - wide(teacher_hidden)
    return (difference @ gram * difference).sum(-1)


def squared_hidden_distance(hidden: Tensor, teacher_hidden: Tensor) -> Tensor:
    """Compute `‖h − h₀‖²` of each token.

    Args:
        hidden: last hidden states of the student, `(tokens, d)`.
        teacher_hidden: last hidden states of the teacher, `(tokens, d)`.

    Returns:
        `(tokens,)`, a sum over the width.
    """
    return (wide(hidden) - wide(teacher_hidden)).square().sum(-1)


def tiled_squared_logit_distance(
    hidden: Tensor, head: Head, teacher_hidden: Tensor, teacher_head: Head, live: Tensor | None = None
) -> Tensor:
    """Compute `‖z − z₀‖²` of each token where the head is trained, differs from the teacher's, or caps its logits.

    Logits exist for one tile of tokens and vocabulary at a time, in the backward pass too.

    Args:
        hidden: last hidden states of the student, `(tokens, d)`.
        head: makes the student's logits `z`.
        teacher_hidden: last hidden states of the teacher, `(tokens, d)`.
        teacher_head: makes the teacher's logits `z₀`.
        live: where given, the words that count, `(vocab,)` of bool; the distance is then taken of centred logits,
            from which their mean over these words is taken away.

    Returns:
        `(tokens,)`, squared logits.
    """
    if hidden.size(0) == 0:
        return hidden.new_zeros(0) + hidden.sum()
    vocab = head.weight.size(0)
    parts = [slice(start, start + _TILE_VOCAB) for start in range(0, vocab, _TILE_VOCAB)]
    rows = max(1, _TILE_ELEMENTS // min(vocab, _TILE_VOCAB))
    distances = []
    for h, h0 in zip(hidden.split(rows), teacher_hidden.split(rows), strict=True):
        tiles = [_tile(h, head, h0, teacher_head, part, live) for part in parts]
        squares, sums = torch.stack(tiles).sum(0)
        distances.append(squares if live is None else squares - sums.square() / live.sum())
    return torch.cat(distances)


def _tile(
    hidden: Tensor, head: Head, teacher_hidden: Tensor, teacher_head: Head, part: slice, live: Tensor | None
) -> Tensor:
    """Return the sums of squared and of plain differences over a part of the vocabulary, `(2, tokens)`."""
    counted = None if live is None else live[part]
    inputs = (hidden, head.words(part), teacher_hidden, teacher_head.words(part), counted)
    return checkpoint(_difference_sums, *inputs, use_reentrant=False)


def _difference_sums(
    hidden: Tensor, head: Head, teacher_hidden: Tensor, teacher_head: Head, live: Tensor | None
) -> Tensor:
    difference = head.logits(hidden) - teacher_head.logits(teacher_hidden)
    if live is not None:
        difference = difference * live
    return torch.stack([difference.square().sum(-1), difference.sum(-1)])


def token_divergence(
    hidden: Tensor,
    head: Head,
    teacher_hidden: Tensor,
    teacher_head: Head,
    *,
    beta: float,
    temperature: float = 1.0,
) -> Tensor:
    """Compute the divergence of the teacher's and the student's next-token distributions, by TRL's chunked kernel.

    The kernel's tiles hold as many rows as it is given tokens: it is called for a few of them at a time.

    Args:
        hidden: last hidden states of the student, `(tokens, d)`.
        head: makes the student's logits.
        teacher_hidden: last hidden states of the teacher, `(tokens, d)`.
        teacher_head: makes the teacher's logits.
        beta: 0 is KL(teacher ‖ student), 1 is KL(student ‖ teacher), between them the generalised Jensen-Shannon
            divergence (Agarwal et al. 2024, https://arxiv.org/abs/2306.13649, eq. 1).
        temperature: temperature `T` of both distributions.

    Returns:
        `(tokens,)`, nats times `T²`; computed in float32 whatever the inputs are.
    """
    # The one place that names this kernel, which TRL does not export.
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    rows = _kernel_rows(hidden)
    weights = (head.weight, head.bias), (teacher_head.weight, teacher_head.bias)
    shapes = (head.scale, head.softcap, teacher_head.scale, teacher_head.softcap)
    divergences = [
        ChunkedDivergenceFunction.apply(h, *weights[0], h0, *weights[1], beta, temperature, *shapes)[0]
        for h, h0 in zip(hidden.split(rows), teacher_hidden.split(rows), strict=True)
    ]
    return torch.cat(divergences) * temperature**2


def token_cross_entropy(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of each token, by TRL's chunked kernel.

    Args:
        hidden: last hidden states, `(tokens, d)`.
        head: makes the logits.
        targets: token ids to predict, `(tokens,)`.

    Returns:
        `(tokens,)`, nats.
    """
    from trl.kernels import ChunkedLogProbFunction

    rows, shape = _kernel_rows(hidden), (1.0, _KERNEL_VOCAB, head.softcap, head.scale, ())
    log_probs = [
        ChunkedLogProbFunction.apply(h, head.weight, head.bias, y, *shape)[0]
        for h, y in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return -torch.cat(log_probs)


def draw_tokens(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw a token from each distribution, by the inverse of its cumulative sum.

    Args:
        logits: logits of the distributions, `(tokens, vocab)`.
        uniform: numbers in [0, 1), `(tokens,)`; the same number draws the same token on any device.

    Returns:
        `(tokens,)`, token ids.
    """
    cumulative = wide(logits).softmax(-1).cumsum(-1)
    threshold = uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold.to(cumulative.dtype), right=True)[:, 0].clamp_max(
        logits.size(-1) - 1
    )


def sampled_tokens(hidden: Tensor, head: Head, uniform: Tensor) -> Tensor:
    """Draw a token from the model at each position; logits exist for one tile of tokens at a time.

    Args:
        hidden: last hidden states, `(tokens, d)`.
        head: makes the logits.
        uniform: numbers in [0, 1), `(tokens,)`.

    Returns:
        `(tokens,)`, token ids.
    """
    rows = max(1, _TILE_ELEMENTS // head.weight.size(0))
    drawn = [
        draw_tokens(head.scaled_and_capped(F.linear(h, head.weight, head.bias)), u)
        for h, u in zip(hidden.split(rows), uniform.split(rows), strict=True)
    ]
    return torch.cat(drawn)
