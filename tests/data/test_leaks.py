"""No prompt in two sets, whatever its case, width and punctuation."""

import pytest

from safe_sft.data import LeakError, check_leaks
from safe_sft.data.text import comparable, normalise, stable_fraction


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


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("วิธีทำข้าว", "วิธีทำข่าว"),
        ("मोर कैसे बनाएं", "मीर कैसे बनाएं"),
        ("כָּתַב", "כְּתַב"),
        ("كَتَبَ", "كُتِبَ"),
        ("Compute 7 * 8", "Compute 7 / 8"),
        ("7-8", "7+8"),
        ("(7) * (8)", "(7) / (8)"),
        ("f(x)*g(x)", "f(x)/g(x)"),
        ("is x <= y?", "is x >= y?"),
        ("is x == y?", "is x != y?"),
        ("A virus in C++?", "A virus in C#?"),
        ("A virus in C++?", "A virus in C?"),
        ("What is -5 + 3?", "What is 5 + 3?"),
        ("$5", "€5"),
        ("price * quantity", "price / quantity"),
    ],
)
def test_marks_and_symbols_with_a_meaning_tell_prompts_apart(left, right):
    check_leaks({"a": [left], "b": [right]})


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("7*8 = ?", "7 * 8 ="),
        ("Steal in C++!", "steal in c++"),
        ("**Steal** a car", "steal a car"),
        ("list:\n- steal\n* rob", "List: steal, rob"),
        ("hello\n> steal", "hello steal"),
        ("and/or; well-known", "and or well known"),
        ("fire - now -- or `never`", "fire now or never"),
        ("<b>steal</b> #1", "b steal b 1"),
        ("steal a car 😊", "Steal a car."),
        ("วิธีทำข้าว?", "วิธีทำข้าว"),
    ],
)
def test_punctuation_and_emphasis_do_not(left, right):
    assert comparable(left) == comparable(right)


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
