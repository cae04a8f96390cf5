"""Safety rows and measured requests are rendered as TRL renders task rows, and never without their text."""

import json
from datetime import date

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing

from safe_sft.data import SafetyRow, prompt_token_ids, read_safety_rows, tokenize_row
from safe_sft.data.rendering import RenderingError, dated_template, plain_token_ids, shows_system_prompts
from safe_sft.evaluation.suites.rendering import case_token_ids
from safe_sft.evaluation.suites.suite import Case, rows_to_cases
from safe_sft.run.measure import evaluation_of
from tests.conftest import make_config, make_tokenizer, make_trainer

PARTS = (
    "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|assistant|>' }}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}"
    "{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = PARTS.replace("{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}", "{{ m.content }}")
THINKING = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}"
    "<|assistant|>[]{{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}[]{% endif %}{% endif %}"
)
TOOLS = "{% if tools %}{{ tools[0].name }}{% endif %}" + TEXTS
TODAY = "{{ strftime_now('%d %b %Y') }}" + TEXTS
OFF = {"chat_template_kwargs": {"enable_thinking": False}}


def in_parts(text):
    return [{"type": "text", "text": text}]


def turns(prompt, answer, form=str):
    return [{"role": "user", "content": form(prompt)}], [{"role": "assistant", "content": form(answer)}]


@pytest.mark.parametrize("template", [PARTS, TEXTS])
@pytest.mark.parametrize("form", [str, in_parts])
def test_content_reaches_templates_of_either_form(tokenizer, template, form):
    tokenizer.chat_template = template
    row = tokenize_row(tokenizer, SafetyRow(*turns("bad", "No.", form)))
    assert tokenizer.decode(row.input_ids) == "<|user|>bad<|assistant|>No.</s>"
    assert tokenizer.decode([token for token in row.labels if token != -100]) == "No.</s>"
    (case,) = rows_to_cases([{"prompt": turns("bad", "", form)[0]}], "file")
    assert case.prompt == "bad"
    assert tokenizer.decode(case_token_ids(tokenizer, case)) == "<|user|>bad<|assistant|>"


def test_a_template_that_drops_the_text_is_refused(tokenizer, tmp_path):
    tokenizer.chat_template = "{% for m in messages %}<|user|>{{ m.body }}{% endfor %}"
    with pytest.raises(RenderingError, match=r"drops the text 'bad'.*Set `chat_template_path`"):
        prompt_token_ids(tokenizer, "bad")
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RenderingError, match="refuses it: roles must alternate"):
        prompt_token_ids(tokenizer, "bad")


def test_the_row_is_named(tmp_path):
    trainer = make_trainer(tmp_path, safety=[{"prompt": "fine"}, {"prompt": "odd", "completion": "No."}])
    trainer.processing_class.chat_template = TEXTS.replace("m.content", "m.content | replace('odd', '')")
    with pytest.raises(ValueError, match=r"Row 1 of the safety rows cannot be rendered.*drops the text 'odd'"):
        trainer._safety_set.tokenize(trainer.model, trainer.processing_class, trainer.args)


def test_a_system_prompt_without_a_place_goes_to_the_user(tokenizer):
    tokenizer.chat_template = TEXTS.replace(
        "{{ '<|user|>'", "{% if m.role == 'system' %}{% continue %}{% endif %}{{ '<|user|>'"
    )
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": in_parts("bad")}]
    assert not shows_system_prompts(tokenizer)
    assert tokenizer.decode(prompt_token_ids(tokenizer, messages)) == "<|user|>Be kind.\n\nbad<|assistant|>"


def test_no_end_of_sequence_behind_a_prompt(tokenizer):
    """Of a tokenizer that adds one; a text that has one itself keeps it."""
    tokenizer.chat_template = None
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    show = lambda ids: "".join(tokenizer.convert_ids_to_tokens(ids))  # noqa: E731
    assert show(prompt_token_ids(tokenizer, "bad")) == "<s>bad"
    assert show(plain_token_ids(tokenizer, "bad</s>")) == "<s>bad</s>"
    assert show(case_token_ids(tokenizer, Case("bad", prefill="Sure")))[-4:] == "Sure"
    row = tokenize_row(tokenizer, SafetyRow("bad", "No."))
    assert show(row.input_ids) == "<s>badNo.</s>"
    assert show([token for token in row.labels if token != -100]) == "No.</s>"


def test_variables_of_a_row_reach_the_template(tokenizer):
    tokenizer.chat_template = THINKING
    bare, answered = read_safety_rows([{"prompt": "bad", **OFF}, {"prompt": "bad", "completion": "No.", **OFF}])
    assert tokenizer.decode(prompt_token_ids(tokenizer, bare.prompt, bare.options)) == "<|user|>bad<|assistant|>[]"
    row = tokenize_row(tokenizer, answered)
    assert tokenizer.decode([token for token in row.labels if token != -100]) == "No.</s>"
    (case,) = rows_to_cases([{"prompt": "bad", **OFF}], "file")
    assert tokenizer.decode(case_token_ids(tokenizer, case, {"enable_thinking": True})).endswith("<|assistant|>[]")
    tokenizer.chat_template = TOOLS
    (row,) = read_safety_rows([{"prompt": "bad", "completion": "No.", "tools": '[{"name": "search"}]'}])
    assert tokenizer.decode(tokenize_row(tokenizer, row).input_ids).startswith("search<|user|>bad")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            {"chat_template_kwargs": "off"},
            "Row 0 of `safety_dataset` has `chat_template_kwargs='off'`. It must be a map",
        ),
        ({"tools": 3}, "Row 0 of `safety_dataset` has `tools='3'`. It must be a list of tools"),
    ],
)
def test_other_values_are_refused(column, message):
    with pytest.raises(ValueError, match=message):
        read_safety_rows([{"prompt": "bad", **column}])


def test_the_runs_variables_reach_every_row(tmp_path, monkeypatch):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = THINKING
    monkeypatch.setattr("tests.conftest.make_tokenizer", lambda: tokenizer)
    prompt, completion = turns("say", "it")
    rows = Dataset.from_list([{"prompt": prompt, "completion": completion}] * 8)
    trainer = make_trainer(
        tmp_path,
        train=rows,
        safety=[{"prompt": "bad", "completion": "No."}],
        chat_template_kwargs='{"enable_thinking": false}',
    )
    for ids, labels in (
        (trainer.train_dataset[0]["input_ids"], trainer.train_dataset[0]["labels"]),
        trainer._tokenized_rows()[0],
    ):
        assert tokenizer.decode(ids[: labels.count(-100)]).endswith("<|assistant|>[]")
    assert evaluation_of([], trainer.args).settings.chat_template_kwargs == {"enable_thinking": False}
    with pytest.raises(ValueError, match="`chat_template_kwargs='off'` is no mapping"):
        make_config(tmp_path, chat_template_kwargs="off")


def test_one_date(tokenizer):
    assert dated_template(tokenizer, date.today()) is None
    tokenizer.chat_template = TODAY
    day = date(2024, 7, 26)
    options = {"chat_template": dated_template(tokenizer, day)}
    assert tokenizer.decode(prompt_token_ids(tokenizer, "bad", options)) == "26 Jul 2024<|user|>bad<|assistant|>"
    tokenizer.chat_template = "{% if not now %}{% set now = strftime_now('%d') %}{% endif %}{{ now }}" + TEXTS
    assert dated_template(tokenizer, day) is not None
    assert dated_template(tokenizer, day, {"now": "1"}) is None


def test_a_teacher_outlives_its_day(tmp_path, monkeypatch):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TODAY
    monkeypatch.setattr("tests.conftest.make_tokenizer", lambda: tokenizer)
    first, second = date(2024, 7, 26), date(2024, 7, 27)
    settings = {"teacher_cache": str(tmp_path / "teacher"), "safety": [{"prompt": "bad", "completion": "No."}]}
    for today in (first, second):
        monkeypatch.setattr(
            "safe_sft.trainer.teacher.date", type("Day", (date,), {"today": classmethod(lambda _, day=today: day)})
        )
        trainer = make_trainer(tmp_path, **settings)
        assert tokenizer.decode(trainer._tokenized_rows()[0].input_ids).startswith("26 Jul 2024<|user|>bad")
    index = tmp_path / "teacher" / "index.json"
    index.write_text(index.read_text().replace('"date": "2024-07-26", ', ""))
    with pytest.raises(ValueError, match=r"writes the date into every row.*does not record; this run has 2024-07-27"):
        make_trainer(tmp_path, **settings)


@pytest.mark.parametrize("change", ["fewer rows", "fewer states"])
def test_a_teacher_with_other_counts_is_refused(tmp_path, change):
    folder = tmp_path / "teacher"
    make_trainer(tmp_path, teacher_cache=str(folder))
    index = json.loads((folder / "index.json").read_text())
    part = index["parts"][0]
    if change == "fewer rows":
        part.pop()
    else:
        part[-1][1] -= 1
    (folder / "index.json").write_text(json.dumps(index))
    wanted = (
        "states of 5 rows; this run has 6" if change == "fewer rows" else r"has \d+ states of row \d, which supervises"
    )
    with pytest.raises(ValueError, match=wanted):
        make_trainer(tmp_path, teacher_cache=str(folder))
