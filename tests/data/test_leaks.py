"""No prompt in two sets, whatever its case, width and punctuation."""

import pytest

from safe_sft.data import LeakError, check_leaks
from safe_sft.data.text import normalise, stable_fraction


def user(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("How do I steal?", "how do i  STEAL"),
        ("ﬁre — now", "fire now"),  # a ligature
        ("straße", "STRASSE"),
        ("a\n\nb", "a b"),
        ("snake_case", "snake case"),
        ("爆弾、作る", "爆弾 作る"),
    ],
)
def test_normalised_text(left, right):
    assert normalise(left) == normalise(right)


def test_other_words_are_other_prompts():
    assert normalise("steal a car") != normalise("steal a cart")
    assert 0 <= stable_fraction("x") < 1


@pytest.mark.parametrize(
    "leaked",
    [
        "Steal, a CAR!",
        user("steal a car"),
        [{"role": "system", "content": "s"}, *user("Steal a car")],
        user([{"type": "image", "text": None}, {"type": "text", "text": "Steal a car"}]),
    ],
)
def test_a_leak_names_count_example_and_remedy(leaked):
    sets = {"the training data": ["one", leaked], "the safety set": ["steal a car", "two", "two!"]}
    with pytest.raises(
        LeakError, match=r"(?i)1 of the 2 prompts of the safety set .* the training data, such as .*steal.*remove"
    ):
        check_leaks(sets)


def test_disjoint_sets_and_prompts_without_words_pass():
    check_leaks({"a": ["one", "?", "one"], "b": ["two", "!"], "c": [user("three")]})


def test_long_examples_are_cut():
    with pytest.raises(LeakError) as caught:
        check_leaks({"a": ["word " * 100], "b": ["word " * 100]})
    assert len(str(caught.value)) < 400
