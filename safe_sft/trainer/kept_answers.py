"""The aligned model's own answers to safety prompts and to requests of the task, kept where runs share them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..data.tokenization import answered
from ..models.generation import generation_config
from ..models.identity import model_identity
from ..replay import answer_prompts
from ..storage.json_object import read_json_file
from ..storage.made_once import made_once
from ..storage.writing import write_json


def own_answers(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    args: SafeSFTConfig,
    *,
    max_new_tokens: int,
    max_length: int | None = None,
    what: str = "safety prompts",
) -> list[TokenizedRow]:
    """Answer `prompts` greedily as `answer_prompts` does, or read the answers where `preparation_store` has them.

    Args:
        model: the aligned model, on its device.
        tokenizer: the model's tokenizer.
        prompts: token ids of each prompt.
        args: the run's configuration.
        max_new_tokens: longest answer, in tokens.
        max_length: most tokens of a row; longer ones are cut off at the end.
        what: what the prompts are, for the progress bar.
    """

    def ask() -> list[list[int]]:
        rows = answer_prompts(
            model,
            tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            batch_size=args.safety_eval_batch_size,
            what=what,
        )
        return [row.input_ids[len(prompt) :] for prompt, row in zip(prompts, rows, strict=True)]

    if args.preparation_store is None:
        given = ask()
    else:
        digest = _digest(model, tokenizer, prompts, args.safety_eval_batch_size, max_new_tokens)
        given = _kept(Path(args.preparation_store, f"answers-{digest}.json"), ask)
    return [answered(prompt, [*prompt, *ids], max_length) for prompt, ids in zip(prompts, given, strict=True)]


def _kept(path: Path, ask: Callable[[], list[list[int]]]) -> list[list[int]]:
    with made_once(path):
        if not path.is_file():
            given = ask()
            if PartialState().is_main_process:
                write_json(path, {"answers": given})
            PartialState().wait_for_everyone()
        content: dict[str, list[list[int]]] = read_json_file(path, "Remove it; the answers are then made anew.")
    return content["answers"]


def _digest(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    max_new_tokens: int,
) -> str:
    """Digest all that the answers depend on; batches and ranks among them, for they decide the last bit of a sum."""
    identity = model_identity(model, tokenizer)
    settings = generation_config(model, tokenizer, max_new_tokens).to_json_string()
    content = [identity, settings, batch_size, PartialState().num_processes, [list(prompt) for prompt in prompts]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
