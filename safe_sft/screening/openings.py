"""How this model begins a refusal: the first tokens of its own answers to harmful requests."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..data.builtin import builtin_prompts
from ..data.rendering import TemplateOptions, text_tokenizer
from ..data.subset import evenly_spread
from ..data.tokenization import prompt_token_ids
from ..evaluation.judges import RefusalPhrases, Verdict
from ..replay.answers import answer_prompts

#: Requests that the model is asked, and tokens of each answer that are read.
ASKED, GLANCE = 96, 24
#: Tokens of an opening, and how many openings are kept: the most frequent ones.
OPENING_TOKENS, OPENINGS = 4, 6
#: A model that refuses fewer of the requests than this share has no refusals to look for.
_LEAST = 0.25


@dataclass(frozen=True)
class Openings:
    """Beginnings of refusals, none of which begins with another: no answer begins with two of them.

    Attributes:
        tokens: token ids of each.
        texts: the same in words.
        refused: how many requests the model refused; 0 where it was not asked.
        asked: how many it was asked.
    """

    tokens: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    refused: int = 0
    asked: int = 0

    @classmethod
    def given(cls, texts: Sequence[str], tokenizer: Any) -> "Openings":
        """Make them of texts: the first `OPENING_TOKENS` tokens of each.

        Args:
            texts: how the model refuses.
            tokenizer: the model's tokenizer.

        Raises:
            ValueError: for a text without a word.
        """
        if blank := [text for text in texts if not text.strip()]:
            raise ValueError(f"`--refusals {blank[0]!r}` says nothing. Give the first words of a refusal.")
        begun = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"][:OPENING_TOKENS]) for text in texts]
        kept = [one for one in dict.fromkeys(begun) if not any(o != one and one[: len(o)] == o for o in begun)]
        return cls(tuple(kept), tuple(map(str, tokenizer.batch_decode(kept))))


def find_openings(
    model: nn.Module, processing_class: Any, options: TemplateOptions | None = None, *, batch_size: int
) -> Openings:
    """Let the model answer built-in harmful requests, each rank its share, and keep how its refusals begin.

    Args:
        model: the aligned model, on its device.
        processing_class: its tokenizer or processor.
        options: further variables of the chat template.
        batch_size: requests answered at a time, per device.

    Raises:
        ValueError: when the model refuses hardly any of them.
    """
    tokenizer = text_tokenizer(processing_class)
    requests = [prompt.prompt for prompt in evenly_spread(builtin_prompts("safety"), ASKED)]
    ids = [prompt_token_ids(processing_class, request, options) for request in requests]
    rows = answer_prompts(model, tokenizer, ids, max_new_tokens=GLANCE, batch_size=batch_size)
    answers = [row.input_ids[len(asked) :] for row, asked in zip(rows, ids, strict=True)]
    return openings_of(answers, tokenizer.batch_decode(answers, skip_special_tokens=True), tokenizer)


def openings_of(answers: Sequence[Sequence[int]], texts: Sequence[str], tokenizer: Any) -> Openings:
    """Keep the most frequent beginnings of the answers that refuse, by refusal phrases.

    Args:
        answers: token ids of each answer.
        texts: the same in words.
        tokenizer: the model's tokenizer.

    Raises:
        ValueError: when hardly any of them refuses.
    """
    judge = RefusalPhrases()
    refusing = [answer for answer, text in zip(answers, texts, strict=True) if judge("", text) is Verdict.REFUSED]
    begun = Counter(tuple(answer[:OPENING_TOKENS]) for answer in refusing if len(answer) >= OPENING_TOKENS)
    if not begun or len(refusing) < _LEAST * len(answers):
        raise ValueError(
            f"The model refuses {len(refusing)} of the {len(answers)} harmful requests that it was asked, and rows "
            "are screened by what it would refuse. Give the aligned model, as it is before tuning, with its chat "
            "template; or say by `--refusals` how it refuses."
        )
    kept = tuple(tokens for tokens, _ in sorted(begun.items(), key=lambda pair: (-pair[1], pair[0]))[:OPENINGS])
    return Openings(kept, tuple(map(str, tokenizer.batch_decode(kept))), len(refusing), len(answers))
