"""Generates greedy answers to many prompts: batched, sorted by length, padded on the left."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from .modes import without_dropout
from .sharding import gathered


def generation_config(model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """Return settings for greedy decoding that stops at the model's own end-of-sequence tokens."""
    return GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, **_ends(model, tokenizer))


def _ends(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> dict[str, int | list[int] | None]:
    """Return the end-of-sequence tokens of the model, the only generation settings of its own that count, and the
    tokenizer's, which training teaches: a chat template may end its turns with another one than the model's.
    """
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = [own] if isinstance(own, int) else list(own or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        ends.append(tokenizer.eos_token_id)
    eos = ends[0] if len(ends) == 1 else ends or None
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return {"eos_token_id": eos, "pad_token_id": pad}


@contextmanager
def own_settings_aside(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Keep, inside this context, only end-of-sequence and padding tokens of the model's own generation settings.

    `transformers` fills what a `GenerationConfig` leaves open from the model's own, such as a penalty on repetition, a
    number of beams or stop strings; an answer would then not be the greedy one.

    Args:
        model: a model that generates, or a wrapper of one.
        tokenizer: the model's tokenizer.
    """
    plain = GenerationConfig(**_ends(model, tokenizer))
    holders = [module for module in model.modules() if "generation_config" in vars(module)]
    own = [module.generation_config for module in holders]
    for module in holders:
        module.generation_config = plain  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, settings in zip(holders, own, strict=True):
            module.generation_config = settings


def length_sorted_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Return indices in batches of similar length, the longest first, so that memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    description: str = "Generating",
    progress: bool = True,
    on_batch: Callable[[list[int], list[list[int]]], None] | None = None,
) -> list[list[int]]:
    """Answer `prompts` greedily. A batch ends when each of its answers has ended.

    Args:
        model: the model, which has `.generate`, on its device.
        tokenizer: the model's tokenizer.
        prompts: token ids of each prompt, complete (chat template applied).
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts answered at a time.
        description: text of the progress bar.
        progress: whether to show a progress bar, with the time that is left.
        on_batch: function that gets the indices and the answers of each batch as soon as it is done.

    Returns:
        Token ids of each answer, in the order of `prompts`, with the end-of-sequence token where the model gave one.

    Raises:
        ValueError: when a prompt is longer than what the model reads, or its logits are not finite.
    """
    _require_short(model, tokenizer, prompts)
    config = generation_config(model, tokenizer, max_new_tokens)
    answers: dict[int, list[int]] = {}
    bar = tqdm(total=len(prompts), desc=description, disable=not progress)
    with gathered(*model.parameters()), without_dropout(model), own_settings_aside(model, tokenizer), bar:
        for batch in length_sorted_batches([len(p) for p in prompts], batch_size):
            found = _answer_batch(model, config, [prompts[i] for i in batch])
            answers |= zip(batch, found, strict=True)
            if on_batch is not None:
                on_batch(batch, found)
            bar.update(len(batch))
    return [answers[i] for i in range(len(prompts))]


def _require_short(model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse a prompt that is longer than what the model was made for, and would take memory by its square."""
    most = _positions(model)
    longest = max(prompts, key=len, default=())
    if most is not None and len(longest) > most:
        raise ValueError(
            f"A prompt has {len(longest)} tokens, and {type(model).__name__} reads at most {most} "
            f"(`max_position_embeddings`). It begins with {tokenizer.decode(list(longest[:16]))!r}. Remove or shorten "
            "it."
        )


def _positions(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    text = config.get_text_config() if isinstance(config, PreTrainedConfig) else None
    most = getattr(text, "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def _answer_batch(model: nn.Module, config: GenerationConfig, prompts: list[Sequence[int]]) -> list[list[int]]:
    """Answer prompts that go through the model together; each answer is cut where it ended."""
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), config.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    watch = _Finite()
    try:
        output = model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            logits_processor=LogitsProcessorList([watch]),
            synced_gpus=False,  # ranks may have different numbers of batches
        )
    except IndexError as error:  # of a model that has a vector for each position
        if width + config.max_new_tokens <= (_positions(model) or 0):
            raise
        raise ValueError(
            f"A prompt of {width} tokens and an answer of up to {config.max_new_tokens} (`max_new_tokens`) are more "
            f"than the {_positions(model)} that {type(model).__name__} has positions for. Lower `max_new_tokens`, or "
            "shorten the prompt."
        ) from error
    watch.require(model)
    eos = {config.eos_token_id} if isinstance(config.eos_token_id, int) else set(config.eos_token_id or [])
    return [_until_end(answer, eos) for answer in output[:, width:].tolist()]


def _until_end(answer: list[int], eos: Collection[int]) -> list[int]:
    return answer[: next((k + 1 for k, token in enumerate(answer) if token in eos), len(answer))]


class _Finite(LogitsProcessor):
    """Checks that logits are numbers, and leaves them as they are. A masked token may have minus infinity."""

    def __init__(self) -> None:
        self._bad: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        bad = ~(scores.amax(-1) < torch.inf).all()  # the largest of a row with a NaN is a NaN
        self._bad = bad if self._bad is None else self._bad | bad
        return scores

    def require(self, model: nn.Module) -> None:
        """Raise an error if any logits were not numbers; waits for the device, once per batch."""
        if self._bad is not None and self._bad.item():
            raise ValueError(
                f"The logits of {type(model).__name__} are not finite (NaN or infinite), so what it says means "
                "nothing. Run it in a dtype with a wider range, such as bfloat16 or float32; if that does not help, "
                "its weights are damaged: take another checkpoint."
            )
