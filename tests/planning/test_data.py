"""Rows are counted where they can be, and what was assumed is said."""

import json

from trl import DatasetMixtureConfig, ModelConfig

from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.data import prompt_token_ids, tokenize_row
from safe_sft.data.safety_rows import SafetyRow
from safe_sft.data.task_format import TaskFormat
from safe_sft.planning.data import SAMPLE, assumed_rows, count_safety_rows, count_task_rows
from safe_sft.run.local_rows import local_rows

from ..conftest import make_config, make_model, make_tokenizer, safety_rows, task_rows


def test_task_rows_are_tokenised():
    tokenizer, rows = make_tokenizer(), task_rows()
    lengths = [len(tokenize_row(tokenizer, SafetyRow(r["prompt"], r["completion"])).input_ids) for r in rows]
    found = count_task_rows(rows, tokenizer, 1024)
    assert (found.rows, found.tokens, found.longest) == (16, sum(lengths) / 16, max(lengths))
    assert found.counted
    assert not found.note
    cut = count_task_rows(rows, tokenizer, 10)
    assert (cut.longest, cut.tokens) == (10, 10)


def test_text_rows():
    found = count_task_rows([{"text": "abcd"}, {"text": "ab"}], make_tokenizer(), 3)
    assert (found.tokens, found.longest, found.supervised) == (2.5, 3, 1.5)


def test_many_rows_are_sampled():
    found = count_task_rows([{"text": "abcd"}] * (SAMPLE + 1), make_tokenizer(), None)
    assert (found.rows, found.tokens, found.counted) == (SAMPLE + 1, 4, False)
    assert f"{SAMPLE} of {SAMPLE + 1}" in found.note


def test_safety_rows():
    tokenizer = make_tokenizer()
    assert count_safety_rows(safety_rows(), tokenizer, 1024, 128).counted
    asked = count_safety_rows([{"prompt": "bad"}], tokenizer, 1024, 7)
    prompt = len(prompt_token_ids(tokenizer, "bad"))
    assert (asked.tokens, asked.supervised, asked.counted) == (prompt + 7, 7, False)
    builtin = count_safety_rows(None, None, 100, 128)
    assert builtin.rows > 100
    assert (builtin.longest, builtin.supervised) == (100, 100)


def test_assumed_rows_say_so():
    assert "every row of 512 tokens" in assumed_rows(None, 512, "task rows").note


def test_what_is_not_on_this_machine_is_assumed(tmp_path):
    script = SafeScriptArguments(dataset_name="org/data", safety_dataset_name="org/safety", safety_eval=False)
    model, mixture = ModelConfig(model_name_or_path="org/model"), DatasetMixtureConfig()
    args = make_config(tmp_path, max_length=100)
    task, safety = local_rows(script, args, model, mixture, rows=7, row_tokens=50)
    assert (task.rows, task.tokens, task.counted) == (7, 50, False)
    assert (safety.rows, safety.counted) == (None, False)


def test_what_is_on_this_machine_is_counted(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    make_model().save_pretrained(tmp_path)
    task_rows().to_json(tmp_path / "task.jsonl")
    (tmp_path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    data = {"dataset_name": str(tmp_path / "task.jsonl"), "safety_dataset_name": str(tmp_path / "safety.jsonl")}
    found = local_rows(
        SafeScriptArguments(**data, safety_eval=False),
        make_config(tmp_path, max_length=100),
        ModelConfig(model_name_or_path=str(tmp_path)),
        DatasetMixtureConfig(),
    )
    assert [(rows.rows, rows.counted) for rows in found] == [(16, True), (6, True)]


def test_options_of_the_chat_template_are_counted():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ note }}{% for m in messages %}{{ m.content }}{% endfor %}"
    rows = [{"prompt": [{"role": "user", "content": "ask"}], "completion": [{"role": "assistant", "content": "yes"}]}]
    options = {"note": "12345"}
    assert count_task_rows(rows, tokenizer, None).tokens == 6
    assert count_task_rows(rows, tokenizer, None, options).tokens == 11
    assert count_task_rows([{**rows[0], "chat_template_kwargs": {"note": "1"}}], tokenizer, None, options).tokens == 7
    assert count_safety_rows(rows, tokenizer, None, 8, None, options).tokens == 11
    assert count_safety_rows([{"prompt": rows[0]["prompt"]}], tokenizer, None, 8, None, options).tokens == 8 + 8


def test_rows_that_wear_the_format_of_the_task_are_counted_with_it():
    rows, tokenizer = safety_rows(), make_tokenizer()
    bare, dressed = (
        count_safety_rows(rows, tokenizer, None, 8, None, None, format)
        for format in (None, TaskFormat("12345 {request}", 1.0, 0))
    )
    assert dressed.tokens == bare.tokens + 6
    assert dressed.supervised == bare.supervised
