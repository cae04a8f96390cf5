"""Separates the answer of a reasoning model from the thought before it.

The marks are those of the families' own chat templates: `<think>` (DeepSeek-R1, Qwen3, SmolLM3, Nemotron, Olmo),
`<thinking>`, `<thought>` (EXAONE Deep), `<reasoning>`, `<seed:think>` (Seed-OSS), `<longcat_think>`, `[THINK]`
(Magistral), `◁think▷` (Kimi), `<|begin_of_thought|>` (Sky-T1, OpenThinker), `<|START_THINKING|>` (Command A),
`<|inner_prefix|>` (Apertus), the channels of gpt-oss (`<|channel|>analysis`) and of Gemma 4 (`<|channel>thought`),
s1's turns, and Granite's sentences.
"""

import re
from typing import NamedTuple

_WORD = r"(?:\w+[:_-])?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|monologue)(?:_\w+)?"
_OPENS = (
    rf"[<\[◁]\|?{_WORD}\|?[>\]▷]",
    r"<\|(?:begin_of_thought|begin_thought|thought_start|think_start|start_thinking|inner_prefix)\|>",
    r"<\|channel\|>(?:analysis|commentary)",
    r"<\|?channel\|?>(?:analysis|thought|thinking)",
    r"<\|im_start\|>think",
)
_CLOSES = (
    rf"[<\[◁]\|?/{_WORD}\|?[>\]▷]",
    r"<\|(?:end_of_thought|end_thought|thought_end|think_end|end_thinking|inner_suffix)\|>",
    r"<\|channel\|>final(?:\s*<\|constrain\|>\s*\w+)?\s*<\|message\|>",
    r"<channel\|>",
    r"<\|im_start\|>answer",
)
# Plain words are a mark only where a thought was begun in plain words.
_IN_WORDS = re.compile(
    r"\s*Here(?: is|'s) my thought process:(?:.*Here(?: is|'s) my response:)?", re.IGNORECASE | re.DOTALL
)
_OPEN = re.compile("|".join(_OPENS), re.IGNORECASE)
_CLOSE = re.compile("|".join(_CLOSES), re.IGNORECASE)
# Marks that say where an answer begins or ends, and are no part of it.
_FRAME = re.compile(
    r"<\|(?:start_response|end_response|begin_of_solution|end_of_solution)\|>|</?answer>", re.IGNORECASE
)


class Said(NamedTuple):
    """An answer, apart from the thought before it.

    Attributes:
        thought: the text up to the last end of a thought, marks included; empty where there is none.
        answer: the text after the thought; None when a thought was begun and not ended, so that there is no answer.
    """

    thought: str
    answer: str | None


def split_thought(text: str, *, opened: bool = False) -> Said:
    """Split a text where its last thought ends.

    Args:
        text: the text that a model wrote, with its special tokens where these mark thoughts.
        opened: whether the prompt had begun a thought already.
    """
    in_words = _IN_WORDS.match(text)
    if in_words is not None:
        closed = in_words[0].lower().endswith("response:")
        return Said(in_words[0], text[in_words.end() :].lstrip()) if closed else Said(text, None)
    ends = [found.end() for found in _CLOSE.finditer(text)]
    end = ends[-1] if ends else 0
    begun = _OPEN.search(text, end) is not None or (opened and not ends)
    if begun:
        return Said(text, None)
    if not ends:
        return Said("", text)
    return Said(text[:end], _FRAME.sub("", text[end:]).lstrip())


def opens_thought(prompt: str, request: str) -> bool:
    """Return whether a prompt ends within a thought, as where a template begins one for the model.

    Args:
        prompt: the prompt as the model reads it, with its special tokens.
        request: the last turn of the user, whose own marks do not count.
    """
    asked = request.strip()
    found = prompt.rfind(asked) if asked else -1
    tail = prompt[found + len(asked) :] if found >= 0 else prompt[-40:]
    return split_thought(tail).answer is None
