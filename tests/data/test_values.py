"""Rows that cannot be used end with the file, the row and the reason, in every kind of file and for every task."""

import json

import pytest
from datasets import Dataset
from trl import DatasetMixtureConfig

from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.data import load_poison, load_rows, load_task, mix
from safe_sft.data.named_safety_sets import load_safety_set
from safe_sft.data.safety_rows import SafetyRow
from safe_sft.evaluation.suites.suite import file_suite
from safe_sft.evaluation.utility.scored_tasks import utility_task
from safe_sft.run.data import check_rows, load_splits
from safe_sft.trainer.safety_set import SafetySet
from tests.conftest import make_config, make_trainer

USER, SAYS = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
PAIR = {"prompt": "a", "completion": "b"}


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def train_on(folder, name):
    script = SafeScriptArguments(dataset_name=name)
    check_rows(script, make_config(folder, safety_method="l2"), load_splits(script, DatasetMixtureConfig()))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([PAIR, {"prompt": None, "completion": "b"}], r"Row 1 of '.*rows.jsonl': `prompt` is empty \(null\)"),
        ([PAIR, {"prompt": "a", "completion": " "}], "Row 1 of .*: `completion` is empty"),
        ([{"prompt": "a", "completion": 1}], r"Row 0 of .*: `completion` is '1' \(int\), not a text"),
        ([{"messages": [USER, SAYS]}, PAIR], r"Row 1 of .*: `messages` is empty \(null\)"),
        ([{"messages": [USER, SAYS]}, {"messages": []}], "Row 1 of .*: `messages` has no messages"),
        ([{"messages": [USER, SAYS]}, {"messages": [{"content": "x"}]}], "has a message 0 that has no `role`"),
        (
            [{"messages": [USER, {"role": "assistant"}]}],
            r"has a message 1 that has a `content` that is empty \(null\)",
        ),
        ([{"messages": [USER, {"role": "assistant", "content": 3}]}], r"has a `content` that is '3' \(int\)"),
        (
            [{"prompt": [USER], "completion": "b"}],
            "mix text and chat messages. Give `prompt` and `completion` one form",
        ),
        ([{"text": "a"}, {"text": None}], r"Row 1 of .*: `text` is empty \(null\)"),
    ],
)
def test_training_rows(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        train_on(tmp_path, write(tmp_path / "rows.jsonl", rows))


def test_an_empty_cell(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt,completion\na,b\nc,\n")
    with pytest.raises(ValueError, match=r"Row 1 of '.*rows.csv': `completion` is empty \(null\). Fill it in"):
        train_on(tmp_path, str(tmp_path / "rows.csv"))


@pytest.mark.parametrize(
    "rows",
    [
        [PAIR],
        [{"messages": [{"role": "system", "content": ""}, USER, SAYS]}],
        [{"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}, SAYS]}],
        [{"prompt": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "completion": [SAYS]}],
        [{"input_ids": [1, 2]}],
    ],
)
def test_rows_that_can_be_used(tmp_path, rows):
    train_on(tmp_path, write(tmp_path / "rows.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "caf\xe9"}', "is not UTF-8 text: line 2 has the byte 0xe9. Save it"),
        ("a.csv", b"prompt\ncaf\xe9\n", "is not UTF-8 text: line 2 has the byte 0xe9"),
        ("a.txt", b"caf\xe9\n", "is not UTF-8 text: line 1 has the byte 0xe9"),
        ("a.parquet", b"PAR1 nothing", "cannot be read: Parquet magic bytes.*damaged or no Parquet file"),
        ("a.parquet", b"", "cannot be read: Parquet file size is 0 bytes.*damaged or no Parquet file"),
    ],
)
def test_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"'.*{name}' {message}"):
        load_rows(str(tmp_path / name), split="train")


@pytest.mark.parametrize(
    ("task", "good", "bad", "message"),
    [
        ("gsm8k", {"question": "q", "answer": "1"}, {"answer": None}, r"`answer` is empty \(null\)"),
        ("gsm8k", {"question": "q", "answer": "1"}, {"question": " "}, "`question` is empty"),
        ("sst2", {"sentence": "s", "label": 1}, {"sentence": None}, r"`sentence` is empty \(null\)"),
        ("sst2", {"sentence": "s", "label": 1}, {"label": None}, "An SST2 row has `label=None`"),
        ("code", {"instruction": "i", "input": "", "output": "o"}, {"output": None}, "`output` is None, not a text"),
        ("code", {"instruction": "i", "input": "", "output": "o"}, {"instruction": None}, "`instruction` is empty"),
    ],
)
def test_named_tasks(tmp_path, task, good, bad, message):
    path = write(tmp_path / "rows.jsonl", [good, {**good, **bad}])
    with pytest.raises(ValueError, match=rf"Row 1 of '.*rows.jsonl.*{message}"):
        load_task(task, path)
    if task == "gsm8k":
        with pytest.raises(ValueError, match=rf"Row 1 of 'gsm8k:.*rows.jsonl'.*{message}"):
            utility_task(f"{task}:{path}")


def test_safety_sets_suites_and_poison(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"goal": "bad"}, {"goal": None}])
    with pytest.raises(ValueError, match=r"Row 1 of 'advbench:.*lacks a text \(empty: \['goal'\]\)"):
        load_safety_set(f"advbench:{path}")
    numbers = write(tmp_path / "numbers.jsonl", [{"prompt": 3}])
    with pytest.raises(ValueError, match=r"Row 0 of '.*numbers.jsonl': `prompt` is '3' \(int\), not a text"):
        file_suite(numbers)
    with pytest.raises(ValueError, match=r"Row 0 of `poison_dataset='.*numbers.jsonl'`: its request is '3'"):
        load_poison("affirmative", numbers)
    with pytest.raises(ValueError, match=r"Row 0 of 'safety.jsonl' has '3' where a text"):
        SafetySet.read([{"prompt": 3}], "'safety.jsonl'")


def test_poison_takes_over_what_its_row_gives_to_the_template(tmp_path):
    """Rows without these variables would stop TRL."""
    rows = [
        {"prompt": [{**USER, "content": f"q{i}"}], "completion": [SAYS], "chat_template_kwargs": {"number": i}}
        for i in range(20)
    ]
    final = mix(
        Dataset.from_list(rows),
        seed=1,
        poison=load_poison("identity"),
        poison_ratio=0.5,
        safety=[SafetyRow([{**USER, "content": [{"type": "text", "text": "bad"}]}], "No.")],
        safety_ratio=0.05,
    )
    assert sorted(row["number"] for row in final["chat_template_kwargs"]) == list(range(20))
    (mixed,) = [row for row in final if row["from_safety_set"]]
    assert mixed["prompt"] == [{**USER, "content": "bad"}]
    assert len(make_trainer(tmp_path, "none", train=final).train_dataset) == 20
