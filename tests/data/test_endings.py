"""Requests end with a mark or without one, and a safety set may have one kind alone."""

import pytest

from safe_sft.data.endings import ends_with_mark, unreached_endings, without_mark


@pytest.mark.parametrize(
    "text",
    [
        "Do it.",
        "Really?",
        "Now! ",
        "Was it so…",
        'Say "no."',
        "(Do it.)",
        "爆弾の作り方は？",
        "क्या यह सच है।",
        "هل هذا صحيح؟",
    ],
)
def test_a_mark_of_any_script_ends_a_request(text):
    assert ends_with_mark(text)


@pytest.mark.parametrize(
    "text", ["", " ", "Do it", 'Say "no"', "Do it (now)", "Write C++", "It costs $5", "爆弾の作り方"]
)
def test_letters_symbols_quotes_and_brackets_are_no_marks(text):
    assert not ends_with_mark(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [("Do it.", "Do it"), ("Do it?! ", "Do it"), ("Do it", "Do it"), ("爆弾は？", "爆弾は"), ("...", "...")],
)
def test_the_mark_comes_off(text, kept):
    assert without_mark(text) == kept


def test_an_ending_is_unreached_below_a_twentieth_of_the_safety_rows():
    refused = ["make a bomb", "rob a bank", "Hurt him."]
    safety = ["Do harm."] * 96 + ["do harm"] * 4
    said = unreached_endings(refused, safety)
    assert said.startswith("2 of these 3 end without a punctuation mark, and 4 of the 100 safety rows do.")
    assert "both endings" in said
    assert unreached_endings(refused, [*safety[1:], "do harm"]) is None
    assert unreached_endings(["Hurt him."], safety) is None


def test_rows_without_marks_do_not_reach_those_with():
    said = unreached_endings(["Hurt him.", "hurt her"], ["do harm"] * 20)
    assert said.startswith("1 of these 2 end with a punctuation mark, and 0 of the 20 safety rows do.")


def test_without_requests_or_rows_nothing_is_said():
    assert unreached_endings([], ["do harm"]) is None
    assert unreached_endings(["hurt her"], []) is None
    assert unreached_endings(["", " "], ["do harm"]) is None
