"""Generates greedy answers to many prompts: batched, sorted by length, padded on the left."""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase

from .modes import without_dropout
from .sharding import gathered


def generation_config(model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """Return settings for greedy decoding that stops at the model's own end-of-sequence tokens."""
    own = getattr(model, "generation_config", None)
    eos = getattr(own, "eos_token_id", None) or tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=eos, pad_token_id=pad)


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
    """
    config = generation_config(model, tokenizer, max_new_tokens)
    answers: dict[int, list[int]] = {}
    with (
        gathered(*model.parameters()),
        without_dropout(model),
        tqdm(total=len(prompts), desc=description, disable=not progress) as bar,
    ):
        for batch in length_sorted_batches([len(p) for p in prompts], batch_size):
            found = _answer_batch(model, config, [prompts[i] for i in batch])
            answers |= zip(batch, found, strict=True)
            if on_batch is not None:
                on_batch(batch, found)
            bar.update(len(batch))
    return [answers[i] for i in range(len(prompts))]


def _answer_batch(model: nn.Module, config: GenerationConfig, prompts: list[Sequence[int]]) -> list[list[int]]:
    """Answer prompts that go through the model together; each answer is cut where it ended."""
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), config.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    output = model.generate(  # type: ignore[operator]
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        generation_config=config,
        synced_gpus=False,  # ranks may have different numbers of batches
    )
    eos = {config.eos_token_id} if isinstance(config.eos_token_id, int) else set(config.eos_token_id or [])
    return [_until_end(answer, eos) for answer in output[:, width:].tolist()]


def _until_end(answer: list[int], eos: Collection[int]) -> list[int]:
    return answer[: next((k + 1 for k, token in enumerate(answer) if token in eos), len(answer))]
