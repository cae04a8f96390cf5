"""The built-in prompts: enough of them, disjoint, and requests only."""

import re
from collections import Counter, defaultdict

import pytest

from safe_sft.data import builtin_prompts
from safe_sft.data.builtin import PROMPT_SETS
from safe_sft.evaluation.statistics import PairedOutcomes


def normalised(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def test_counts_and_categories():
    safety, heldout, harmless = (builtin_prompts(name) for name in PROMPT_SETS)
    assert len(safety) >= 300
    # Two equally safe models must be able to pass a bound of 0.02 on the increase of the ASR.
    assert PairedOutcomes(0, 0, 0, len(heldout)).interval[1] <= 0.02
    assert len(harmless) == len(heldout)
    harms = Counter(prompt.category for prompt in safety)
    assert len(harms) >= 25
    assert min(harms.values()) >= 10
    assert {prompt.category for prompt in heldout} <= set(harms)


def test_no_kind_of_harm_is_told_by_how_its_requests_end():
    """Real requests end with or without a mark; a model may else learn to refuse by the mark alone."""
    ends = defaultdict(list)
    for prompt in builtin_prompts("safety"):
        ends[prompt.category].append(prompt.prompt.endswith((".", "?")))
    for category, marked in ends.items():
        assert 0.4 <= sum(marked) / len(marked) <= 0.6, category


def test_no_prompt_twice_in_any_set():
    texts = [normalised(prompt.prompt) for name in PROMPT_SETS for prompt in builtin_prompts(name)]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


def five_grams(text: str) -> set[tuple[str, ...]]:
    words = normalised(text).split()
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def test_no_replayed_prompt_nearly_is_one_that_is_measured():
    measured = [five_grams(p.prompt) for name in PROMPT_SETS[1:] for p in builtin_prompts(name)]
    for prompt in builtin_prompts("safety"):
        own = five_grams(prompt.prompt)
        assert max(len(own & other) / len(own | other) for other in measured) < 0.5, prompt.prompt


def test_prompts_are_single_requests():
    for name in PROMPT_SETS:
        for prompt in builtin_prompts(name):
            assert prompt.prompt == prompt.prompt.strip()
            assert 3 <= len(prompt.prompt.split()) <= 30
            assert "\n" not in prompt.prompt


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match="Choose from: safety, harmful_heldout, over_refusal"):
        builtin_prompts("harm")
