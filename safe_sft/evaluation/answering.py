"""A model's answers to requests: in batches, shared among ranks, kept on disk so that a killed run goes on."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..data.forms import text_of
from ..data.rendering import TemplateOptions, text_tokenizer
from ..models.finite import require_finite
from ..models.generation import generate, generation_config, length_sorted_batches
from ..models.identity import model_identity
from ..storage.damage import undamaged
from .degenerate import degenerate_kind
from .suites.rendering import case_token_ids
from .suites.suite import Case
from .thoughts import opens_thought, split_thought


@dataclass(frozen=True)
class Answer:
    """A model's answer to one request.

    Attributes:
        text: the answer without the thought before it, with the beginning that an attack may have forced; empty where
            the text ends inside the thought.
        truncated: whether it was cut at the longest length.
        degenerate: `empty`, `repeated` or None; judged without a forced beginning.
        thought: the thought before the answer; empty where there is none.
        in_thought: whether the text ends inside the thought, so that there is no answer.
    """

    text: str
    truncated: bool = False
    degenerate: str | None = None
    thought: str = ""
    in_thought: bool = False


def _kept_answers(path: Path) -> dict[str, list[int]]:
    """Read the answers of a store's file."""
    known: dict[str, list[int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:  # the run was killed while it wrote this line
            continue
        if not all(type(token) is int and token >= 0 for answer in dict(found).values() for token in answer):
            raise ValueError("a line holds no answers")
        known.update(found)
    return known


class AnswerStore:
    """Answers of earlier runs, in a folder: one line per batch, so that a kill while writing loses one batch at most.

    Args:
        folder: folder of the answers; made where it does not exist. Each rank writes its own file and reads all of
            them.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, list[int]] = {}
        for path in sorted(self._folder.glob("rank*.jsonl")):
            with undamaged(path, "Remove it; the answers that it holds are then made anew."):
                self._known |= _kept_answers(path)

    @property
    def count(self) -> int:
        """Number of answers that are known."""
        return len(self._known)

    def get(self, key: str) -> list[int] | None:
        """Return the token ids of an answer, or None where it is not known."""
        return self._known.get(key)

    def put(self, answers: dict[str, list[int]]) -> None:
        """Keep a batch of answers."""
        self._known.update(answers)
        path = self._folder / f"rank{PartialState().process_index}.jsonl"
        with path.open("a+b") as file:
            ends_midline = file.seek(0, os.SEEK_END) > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write((b"\n" if ends_midline else b"") + json.dumps(answers).encode() + b"\n")


def answer_cases(
    model: nn.Module,
    processing_class: Any,
    cases: Sequence[Case],
    *,
    max_new_tokens: int,
    batch_size: int,
    description: str,
    store: AnswerStore | None = None,
    identity: str | None = None,
    chat_template_kwargs: TemplateOptions | None = None,
) -> list[Answer]:
    """Answer `cases` greedily, each rank its share.

    Batches are formed before they are shared out among ranks, and known ones are left out whole: the answers are those
    of one process that was never interrupted, bit for bit.

    Args:
        model: the model, on its device.
        processing_class: the model's tokenizer or processor.
        cases: the requests to answer.
        max_new_tokens: longest answer, in tokens.
        batch_size: requests answered at a time, per device.
        description: text of the progress bar.
        store: store of earlier answers, with the same folder on every rank; None keeps none.
        identity: `model_identity` of the model, if it is known already; only needed with a store.
        chat_template_kwargs: further variables of the chat template, such as `enable_thinking`; those of a case win.

    Returns:
        An answer for each case, in order, the same on every rank.

    Raises:
        ValueError: when the model's weights or logits are not finite, or the chat template drops a request's text.
    """
    require_finite(model)
    tokenizer = text_tokenizer(processing_class)
    prompts = [case_token_ids(processing_class, case, chat_template_kwargs) for case in cases]
    kept = _Kept(store, _keys(model, tokenizer, prompts, max_new_tokens, identity) if store else [])
    answers = _token_ids(
        model, tokenizer, prompts, kept, max_new_tokens=max_new_tokens, batch_size=batch_size, description=description
    )
    ends = _end_tokens(model, tokenizer)
    return [_answer(tokenizer, case, prompts[i], answers[i], max_new_tokens, ends) for i, case in enumerate(cases)]


@dataclass(frozen=True)
class _Kept:
    """The answers to some prompts, as far as a store has them.

    Attributes:
        store: store of earlier answers; None keeps none.
        keys: the key under which each prompt's answer is kept; not read without a store.
    """

    store: AnswerStore | None
    keys: Sequence[str]

    def known(self) -> dict[int, list[int]]:
        """Return the token ids of the answers that are known, by index of their prompt."""
        if self.store is None:
            return {}
        return {i: found for i, key in enumerate(self.keys) if (found := self.store.get(key)) is not None}

    def put(self, indices: Sequence[int], answers: Sequence[list[int]]) -> None:
        """Keep the answers to the prompts of these indices."""
        if self.store is not None:
            self.store.put({self.keys[i]: tokens for i, tokens in zip(indices, answers, strict=True)})


def _token_ids(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    kept: _Kept,
    *,
    max_new_tokens: int,
    batch_size: int,
    description: str,
) -> dict[int, list[int]]:
    """Return the token ids of every answer, by index of its prompt, the same on every rank."""
    known, state = kept.known(), PartialState()
    batches = list(length_sorted_batches([len(p) for p in prompts], batch_size))
    mine = [i for batch in batches[state.process_index :: state.num_processes] for i in batch if i not in known]
    new = generate(
        model,
        tokenizer,
        [prompts[i] for i in mine],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        description=description,
        progress=state.is_main_process,
        on_batch=lambda indices, answers: kept.put([mine[k] for k in indices], answers),
    )
    pairs = [*known.items(), *zip(mine, new, strict=True)]
    return dict(gather_object(pairs) if state.num_processes > 1 else pairs)


def _answer(
    tokenizer: PreTrainedTokenizerBase, case: Case, prompt: list[int], tokens: list[int], longest: int, ends: set[int]
) -> Answer:
    truncated = len(tokens) >= longest and tokens[-1] not in ends
    marked = str(tokenizer.decode(tokens))  # the marks of a thought may be special tokens
    said = split_thought(marked, opened=_opened(tokenizer, case, prompt))
    if said.answer is None:
        return Answer("", truncated, thought=marked, in_thought=True)
    if not said.thought:
        text = str(tokenizer.decode(tokens, skip_special_tokens=True))
        return Answer(case.prefill + text, truncated, degenerate_kind(text))
    text = _without_special(tokenizer, said.answer)
    return Answer(text, truncated, degenerate_kind(text), said.thought)


def _opened(tokenizer: PreTrainedTokenizerBase, case: Case, prompt: list[int]) -> bool:
    """Return whether the prompt itself has begun a thought, before a forced beginning of the answer."""
    return opens_thought(str(tokenizer.decode(prompt)).removesuffix(case.prefill), text_of(case.turns[-1]["content"]))


def _without_special(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Remove special tokens from a text that was decoded with them, as `skip_special_tokens` would have."""
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    for token in sorted({*special, *tokenizer.all_special_tokens}, key=len, reverse=True):
        text = text.replace(token, "")
    return text


def _end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    end = generation_config(model, tokenizer, 1).eos_token_id
    return {end} if isinstance(end, int) else set(end or [])


def _keys(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    identity: str | None,
) -> list[str]:
    """Digest all that each answer depends on: the model, how it generates, the prompt and the longest length."""
    identity = identity or model_identity(model, tokenizer)
    settings = generation_config(model, tokenizer, max_new_tokens).to_json_string()
    common = hashlib.sha256(f"{identity} {settings}".encode()).hexdigest()
    return [hashlib.sha256((common + json.dumps(list(prompt))).encode()).hexdigest()[:32] for prompt in prompts]
