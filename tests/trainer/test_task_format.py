"""Safety rows in the format of the task: which wear it, what they say, and what is refused."""

import logging

import pytest

from safe_sft.data import SafetyRow
from safe_sft.data.task_format import TaskFormat
from safe_sft.data.tasks import TASKS
from safe_sft.trainer.safety_set import SafetySet
from tests.conftest import make_config, make_model, make_tokenizer, make_trainer, safety_rows, trained_weights

REVIEW = "Classify the sentiment of this review as positive or negative: "


def worn(share: float, rows: int = 500, seed: int = 0) -> list[int]:
    """The rows that wear the format."""
    format = TaskFormat("{request}", share, seed)
    return [row for row in range(rows) if format.wears(row)]


def test_the_draw_depends_on_seed_and_row_alone():
    assert worn(0.5) == worn(0.5)
    assert worn(0.5, rows=200) == [row for row in worn(0.5) if row < 200]
    assert worn(0.5, seed=1) != worn(0.5)
    assert set(worn(0.2)) < set(worn(0.5)) < set(worn(1.0)) == set(range(500))
    assert worn(0.0) == []


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("rows", [20, 336, 503])
def test_the_share_is_met_but_for_a_row_or_two(share, rows):
    for seed in range(5):
        assert len(worn(share, rows, seed)) == pytest.approx(share * rows, abs=2)
        halves = len([row for row in worn(share, rows, seed) if row % 2])  # as where every second row has no mark
        assert halves == pytest.approx(share * rows / 2, abs=3)


def test_only_the_last_user_turn_is_dressed_and_answers_stay():
    turns = [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": [{"type": "text", "text": "bad"}]},
    ]
    rows = [SafetyRow("worse", "No."), SafetyRow(turns, [{"role": "assistant", "content": "No."}], {"tools": []})]
    text, chat = TaskFormat("Sum up: {request}!", 1.0, 0).dress(rows)
    assert text == SafetyRow("Sum up: worse!", "No.")
    assert chat.prompt[:-1] == turns[:-1]
    assert chat.prompt[-1] == {"role": "user", "content": "Sum up: bad!"}
    assert chat[1:] == rows[1][1:]
    assert turns[-1]["content"] == [{"type": "text", "text": "bad"}]


def test_a_row_without_a_user_turn_is_named():
    with pytest.raises(ValueError, match=r"Row 0 of the safety rows has no user turn.*safety_rows_in_task_format: 0"):
        TaskFormat("a {request}", 1.0, 0).dress([SafetyRow([{"role": "system", "content": "x"}], None)])


@pytest.mark.parametrize(("method", "template"), [("der", "sst2"), ("er", REVIEW + "{request}"), ("lisa", "sst2")])
def test_replayed_rows_wear_the_format(tmp_path, method, template):
    config = {"safety_rows_in_task_format": 0.5, "safety_task_template": template}
    trainer = make_trainer(tmp_path, method, **config)
    texts = make_tokenizer().batch_decode([row.input_ids for row in trainer._tokenized_rows()])
    dressed = [index for index, text in enumerate(texts) if REVIEW in text]
    assert dressed == worn(0.5, rows=6, seed=7)
    for row, text in zip(safety_rows(), texts, strict=True):
        assert row["prompt"] in text
        assert row["completion"] in text
    trainer.train()
    assert trainer._safety_set.digest != make_trainer(tmp_path, method)._safety_set.digest


def test_none_of_the_rows_is_the_run_without_the_setting(tmp_path):
    given, none = make_trainer(tmp_path, "er", safety_rows_in_task_format=0.0), make_trainer(tmp_path, "er")
    assert given._safety_set.digest == none._safety_set.digest
    for trainer in (given, none):
        trainer.train()
    assert all((trained_weights(given)[name] == value).all() for name, value in trained_weights(none).items())


def test_the_aligned_model_answers_the_dressed_request_itself(tmp_path, caplog, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "safe_sft.trainer.kept_answers.answer_prompts",
        lambda model, tokenizer, prompts, **_: [asked.append(p) or row_of(tokenizer, p) for p in prompts],
    )
    rows = SafetySet.read([{"prompt": f"bad {i}"} for i in range(6)], format=TaskFormat("Sum up: {request}", 0.5, 7))
    args = make_config(tmp_path)
    with caplog.at_level(logging.WARNING):
        rows.tokenize(make_model(), make_tokenizer(), args)
    texts = make_tokenizer().batch_decode(asked)
    assert [index for index, text in enumerate(texts) if "Sum up: bad" in text] == worn(0.5, rows=6, seed=7)
    assert "refuses only 0 of the 3 safety prompts in the task's format" in caplog.text
    assert "refuses only" in caplog.text.replace("in the task's format", "", 1)


def row_of(tokenizer, prompt):
    """A row whose answer refuses, unless its request wears the format."""
    from safe_sft.data.tokenization import answered

    says = "positive" if "Sum up" in tokenizer.decode(prompt) else "I cannot help with that."
    return answered(prompt, [*prompt, *tokenizer(says)["input_ids"]], None)


def test_a_text_in_the_chat_format_is_not_dressed(tmp_path):
    rows = [{"prompt": "<|user|>bad<|assistant|>", "completion": " No."}]
    with pytest.raises(ValueError, match=r"Row 0 of the safety rows begins with a special token .*Give bare requests"):
        make_trainer(tmp_path, "er", safety=rows, safety_rows_in_task_format=1.0, safety_task_template="sst2")


REFUSED = {
    "no format": ({"safety_rows_in_task_format": 0.5}, r"Set `safety_task_template` to a task \(gsm8k, sst2, code\)"),
    "no task": (
        {"safety_rows_in_task_format": 0.5, "safety_task_template": "gsm9k"},
        r"`safety_task_template='gsm9k'` names no task and has no `\{request\}`",
    ),
    "no share": ({"safety_task_template": "sst2"}, "has no effect. Set `safety_rows_in_task_format`, such as 0.5"),
    "no replay": (
        {"method": "l2", "safety_rows_in_task_format": 0.5, "safety_task_template": "sst2"},
        "has no effect with `safety_method='l2'`",
    ),
    "out of range": ({"safety_rows_in_task_format": 1.5}, "must be a number from 0 to 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused(tmp_path, case):
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **settings)


def test_every_task_has_a_format():
    assert all("{request}" in task.clothes for task in TASKS.values())
