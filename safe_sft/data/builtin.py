"""The prompts that ship with the package: requests only, no answers."""

import json
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

PROMPT_SETS = ("safety", "harmful_heldout", "over_refusal")


class Prompt(NamedTuple):
    """A request and what kind of harm (or harmless look-alike) it is."""

    category: str
    prompt: str


@lru_cache(maxsize=len(PROMPT_SETS))
def builtin_prompts(name: str) -> tuple[Prompt, ...]:
    """Return one of the built-in sets of prompts.

    Args:
        name: `safety` (harmful requests to replay), `harmful_heldout` (others, to measure with) or `over_refusal`
            (harmless requests that merely sound dangerous).

    Raises:
        ValueError: for another name.
    """
    if name not in PROMPT_SETS:
        raise ValueError(f"Prompt set '{name}' is unknown. Choose from: {', '.join(PROMPT_SETS)}.")
    text = (files("safe_sft.data") / "prompts" / f"{name}.jsonl").read_text(encoding="utf-8")
    return tuple(Prompt(**json.loads(line)) for line in text.splitlines())
