"""Self-replay: the aligned model answers the prompts that have no answer, once, before training."""

from collections.abc import Sequence

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..data.tokenization import TokenizedRow, answered
from ..models.generation import generate


def answer_prompts(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    max_length: int | None = None,
    batch_size: int = 32,
    what: str = "safety prompts",
) -> list[TokenizedRow]:
    """Answer `prompts` greedily, each rank its share, and label the answers.

    Args:
        model: the aligned model, on its device.
        tokenizer: the model's tokenizer.
        prompts: token ids of each prompt.
        max_new_tokens: longest answer, in tokens.
        max_length: most tokens of a row; longer ones are cut off at the end.
        batch_size: prompts answered at a time, on each rank.
        what: what the prompts are, for the progress bar.

    Returns:
        One row for each prompt, in order, the same on every rank.
    """
    state = PartialState()
    mine = range(state.process_index, len(prompts), state.num_processes)
    answers = generate(
        model,
        tokenizer,
        [prompts[i] for i in mine],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        description=f"The aligned model answers the {what}",
        progress=state.is_main_process,
    )
    pairs = list(zip(mine, answers, strict=True))
    everyone = dict(gather_object(pairs) if state.num_processes > 1 else pairs)
    return [answered(prompt, [*prompt, *everyone[i]], max_length) for i, prompt in enumerate(prompts)]
