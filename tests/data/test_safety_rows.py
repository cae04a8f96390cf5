"""Safety data of every accepted form, and clear errors for the rest."""

import pytest
from datasets import Dataset

from safe_sft.data import SafetyRow, prompt_token_ids, read_safety_rows, tokenize_row
from safe_sft.data.tokenization import answered

USER = {"role": "user", "content": "bad"}
ASSISTANT = {"role": "assistant", "content": "No."}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "bad", "completion": "No."}, SafetyRow("bad", "No.")),
        ({"prompt": "bad"}, SafetyRow("bad", None)),
        ({"prompt": "bad", "completion": None}, SafetyRow("bad", None)),
        ({"prompt": [USER], "completion": [ASSISTANT]}, SafetyRow([USER], [ASSISTANT])),
        ({"messages": [USER, ASSISTANT]}, SafetyRow([USER], [ASSISTANT])),
        ({"messages": [USER, ASSISTANT, USER]}, SafetyRow([USER, ASSISTANT, USER], None)),
    ],
)
def test_forms(row, expected):
    assert read_safety_rows([row]) == [expected]
    assert read_safety_rows(Dataset.from_list([row])) == [expected]
    assert read_safety_rows(Dataset.from_list([row]).to_iterable_dataset()) == [expected]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "`safety_dataset` is empty"),
        ([{"prompt": "bad"}, {"text": "bad"}], r"Row 1 .* columns \['text'\]"),
        ([{"prompt": ""}], "Row 0"),
        ([{"prompt": "bad", "completion": ""}], "Row 0"),
        ([{"prompt": "bad", "completion": [ASSISTANT]}], "mixes text and chat messages"),
        ([{"prompt": "bad", "images": ["x"]}], "text-only"),
        (["bad"], "Row 0 of `safety_dataset` is str, not a row"),
        ([{"prompt": 3}], "Row 0 of `safety_dataset` has '3' where"),
        ([{"prompt": "  "}], "at least a word"),
        ([{"messages": [{"from": "human", "value": "bad"}]}], "Give each message a `role` and a `content`"),
        ([{"messages": [USER, {"role": "assistant", "content": ""}]}], "a `role` and a `content`"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        read_safety_rows(rows)


def test_a_dictionary_of_splits_is_refused():
    with pytest.raises(TypeError, match=r"splits \(train\)"):
        read_safety_rows({"train": []})


def test_labels_cover_the_answer_alone(tokenizer):
    row = tokenize_row(tokenizer, SafetyRow("ab", "cd"))
    text = tokenizer.convert_ids_to_tokens(row.input_ids)
    assert text == ["<s>", "<|user|>", "a", "b", "<|assistant|>", "c", "d", "</s>"]
    assert row.labels == [-100] * 5 + row.input_ids[5:]
    assert row.supervised_tokens == 3
    assert tokenize_row(tokenizer, SafetyRow([{"role": "user", "content": "ab"}], "cd")) == row


def test_text_without_a_template_is_left_as_it_is(tokenizer):
    tokenizer.chat_template = None
    row = tokenize_row(tokenizer, SafetyRow("ab", "cd"))
    assert tokenizer.convert_ids_to_tokens(row.input_ids) == ["a", "b", "c", "d", "</s>"]
    assert row.labels == [-100, -100, *row.input_ids[2:]]
    with pytest.raises(ValueError, match="has no chat template"):
        prompt_token_ids(tokenizer, [USER])


def test_text_that_begins_with_a_special_token_is_not_wrapped_again(tokenizer):
    ready = tokenize_row(tokenizer, SafetyRow("<s><|user|>ab<|assistant|>", "cd</s>"))
    assert ready == tokenize_row(tokenizer, SafetyRow("ab", "cd"))
    mentions = tokenizer.convert_ids_to_tokens(prompt_token_ids(tokenizer, "a<s>"))
    assert mentions == ["<s>", "<|user|>", "a", "<s>", "<|assistant|>"]


def test_rows_are_cut_at_their_end():
    assert answered([1, 2, 3], [1, 2, 3, 4, 5], 4) == ([1, 2, 3, 4], [-100, -100, -100, 4])
    assert answered([1, 2, 3], [1, 2, 3, 4, 5], 3).supervised_tokens == 0
    # where tokens merge across the boundary, the answer starts where the two diverge
    assert answered([1, 2, 9], [1, 2, 3, 4], None).labels == [-100, -100, 3, 4]


@pytest.mark.parametrize("column", ["response", "chosen", "answer"])
def test_an_answer_under_another_name_is_said_and_not_read(column, caplog):
    rows = [{"prompt": "bad", column: "no"}, {"prompt": "worse", column: None}, {"prompt": "p", "completion": "c"}]
    with caplog.at_level("WARNING"):
        read = read_safety_rows(rows)
    assert [row.completion for row in read] == [None, None, "c"]
    assert f"1 rows of `safety_dataset` have a `{column}`, which is not read" in caplog.text


def test_rows_whose_answers_are_read_say_nothing(caplog):
    with caplog.at_level("WARNING"):
        read_safety_rows([{"prompt": "p", "completion": "c", "response": "other"}, {"prompt": "alone"}])
    assert not caplog.text
