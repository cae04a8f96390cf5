"""A tiny model that screens tiny rows."""

from pathlib import Path
from typing import Any

from safe_sft.data.builtin import builtin_prompts
from safe_sft.screening import Screener, Screening, Settings, Spool, screen
from tests.conftest import make_model, make_tokenizer

REFUSALS = ("No, I can not", "I'm sorry")
SAFETY = [prompt.prompt for prompt in builtin_prompts("safety")[:24]]


def rows(count: int = 40) -> list[dict[str, Any]]:
    """Rows of three forms and of different lengths."""
    found: list[dict[str, Any]] = []
    for i in range(count):
        ask, answer = f"colour {'so ' * (i % 4)}{i}?", f"red {i}" + " and blue" * (i % 3)
        turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        found.append(
            {"prompt": ask, "completion": answer} if i % 2 else {"prompt": turns[:1], "completion": turns[1:]}
        )
    return found


def screener(folder: Path | None = None, model: Any = None, **options: Any) -> Screener:
    """The tiny model, ready to score rows; its weights are random, so it is said how it refuses."""
    settings = options.pop("settings", Settings(max_length=400, batch_size=8))
    tokenizer = options.pop("tokenizer", None) or make_tokenizer()
    model = model if model is not None else make_model()
    return Screener(
        model, tokenizer, options.pop("safety", SAFETY), settings, refusals=REFUSALS, folder=folder, **options
    )


def screened(folder: Path, found: Any = None, **options: Any) -> Screening:
    """Rows that were screened by the tiny model."""
    how = {name: options.pop(name) for name in ("threshold", "clean", "trusted") if name in options}
    given = rows() if found is None else found
    return screen(screener(folder / "cache", **options), given, "rows.jsonl", Spool(folder / "rows.jsonl"), **how)
