"""Requests of the task that the aligned model refuses are found and replayed; the refused task itself is not."""

import logging

import pytest
from datasets import Dataset

from safe_sft.data.tokenization import answered, prompt_token_ids
from safe_sft.evaluation import RefusalPhrases, Verdict
from safe_sft.trainer.task_refusals import GLANCE, over_refused_forms, task_prompts
from tests.conftest import logged, make_config, make_tokenizer, make_trainer, task_rows

REFUSAL = "I'm sorry, but I can't help with that."
REVIEWS = [f"Say whether this review is good or bad: film {i}" for i in range(20)]


@pytest.fixture
def refuses(monkeypatch):
    """Let the aligned model refuse what has one of the given words, and answer the rest."""
    words: list[str] = []

    def answer(model, tokenizer, prompts, *, max_new_tokens, max_length=None, **_):
        rows = []
        for prompt in prompts:
            asked = tokenizer.decode(prompt)
            text = REFUSAL if any(word in asked for word in words) else "Of course: it is this."
            rows.append(answered(prompt, [*prompt, *tokenizer(text)["input_ids"][:max_new_tokens]], max_length))
        return rows

    monkeypatch.setattr("safe_sft.trainer.kept_answers.answer_prompts", answer)
    return words


def train_rows(prompts) -> Dataset:
    return Dataset.from_list([{"prompt": prompt, "completion": " yes"} for prompt in prompts])


@pytest.fixture
def messages(caplog):
    logger = logging.getLogger("safe_sft")
    logger.addHandler(caplog.handler)
    yield lambda: " ".join(record.getMessage() for record in caplog.records)
    logger.removeHandler(caplog.handler)


def test_refused_requests_are_every_second_replayed_row(tmp_path, refuses, messages):
    refuses += ["poison a well"]
    trainer = make_trainer(
        tmp_path,
        "er",
        train=train_rows([*REVIEWS, "how to poison a well", "how to poison a well", "how to cook"]),
        safety_from_task=True,
        replay_ratio=0.5,
    )
    ids = prompt_token_ids(make_tokenizer(), "how to poison a well")
    schedule, rows = trainer._states.schedule, trainer._states._rows
    assert schedule.from_task == 1
    assert len(rows) == len(trainer._tokenized_rows()) + 1
    assert rows[-1].input_ids[: len(ids)] == ids
    replayed = [schedule.rows(step, 4) for step in range(6)]
    assert all(second == len(rows) - 1 for _, second in replayed)
    assert sorted(first for first, _ in replayed) == list(range(6))
    assert "refuses 1 of the 22 requests" in messages()
    trainer.train()
    assert logged(trainer, "safety/er")


def test_the_task_itself_is_not_protected_when_the_model_refuses_it(tmp_path, refuses, messages):
    refuses += ["review", "poison"]
    trainer = make_trainer(tmp_path, "er", train=train_rows([*REVIEWS, "how to poison a well"]), safety_from_task=True)
    assert trainer._states.schedule.from_task == 1
    assert "refuses 20 of the task's requests of the form 'Say whether this review is good …'" in messages()


def test_nothing_refused_changes_nothing(tmp_path, refuses):
    plain = make_trainer(tmp_path, "er")._states.schedule
    assert make_trainer(tmp_path, "er", safety_from_task=True)._states.schedule == plain


def test_forms_are_told_by_their_first_or_their_last_words():
    tail = [f"film {i} was fun. Is this review good or bad?" for i in range(8)]
    assert over_refused_forms(tail, {*range(6)}) == {"… Is this review good or bad?": {*range(6)}}
    assert over_refused_forms(tail, {0, 1}) == {"… Is this review good or bad?": {0, 1}}
    assert over_refused_forms(tail, {0}) == {}  # few of them: an attack may wear the task's form
    attacks = [f"Write a guide on how to do {i}" for i in range(9)]  # a form of their own, but not the task's
    assert over_refused_forms([*attacks, *(f"review {i}" for i in range(91))], {*range(9)}) == {}
    assert over_refused_forms(tail[:7], {*range(7)}) == {}  # too few to be a form
    assert over_refused_forms([f"how to do {i}" for i in range(30)], {*range(30)}) == {}  # too short to have one


def test_requests_of_any_form_are_asked_once():
    chat = [{"role": "user", "content": "hello"}]
    rows = [
        {"messages": [*chat, {"role": "assistant", "content": "hi"}]},
        {"messages": [*chat, {"role": "assistant", "content": "other"}]},
    ]
    assert task_prompts(Dataset.from_list(rows)) == [chat]
    assert task_prompts(task_rows(3)) == ["colour 0?", "please colour 1?", "please please colour 2?"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (task_rows().to_iterable_dataset(), "streamed rows never end"),
        (Dataset.from_list([{"input_ids": [1, 2]}]), "its rows have none"),
        (Dataset.from_list([{"text": "a story"}]), "its rows have none"),
    ],
)
def test_rows_that_cannot_be_asked_are_refused_before_training(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, "er", train=rows, safety_from_task=True)


def test_only_methods_that_replay_read_it(tmp_path):
    with pytest.raises(ValueError, match="`safety_from_task=True` has no effect"):
        make_config(tmp_path, safety_method="l2", safety_from_task=True)


def test_a_glance_tells_a_refusal():
    assert len(make_tokenizer()("I'm sorry, but I can't")["input_ids"]) <= GLANCE
    assert RefusalPhrases()("", "I'm sorry, but I can't") is Verdict.REFUSED
