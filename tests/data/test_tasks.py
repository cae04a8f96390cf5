"""Tasks by name: one template for training and measuring, fixed splits, clear errors."""

import json

import pytest

from safe_sft.data import DataUnavailable, load_task
from safe_sft.data.tasks import TASKS
from safe_sft.evaluation.utility.scored_tasks import utility_task

SST2 = [{"sentence": f"film {i} ", "label": i % 2} for i in range(400)]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def chat(prompt, completion):
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


@pytest.mark.parametrize(
    ("name", "row", "prompt", "completion"),
    [
        (
            "sst2",
            {"sentence": "a fine film ", "label": 1, "idx": 0},
            "Classify the sentiment of this review as positive or negative: a fine film",
            "positive",
        ),
        (
            "gsm8k",
            {"question": "1+1?", "answer": "1+1=2\n#### 2"},
            "1+1?\n\nThink step by step, and end with #### and the final number.",
            "1+1=2\n#### 2",
        ),
        ("code", {"instruction": "Sort.", "input": "[2, 1]", "output": "[1, 2]"}, "Sort.\n\n[2, 1]", "[1, 2]"),
        ("code", {"instruction": "Print 1.", "input": "", "output": "print(1)"}, "Print 1.", "print(1)"),
    ],
)
def test_templates(name, row, prompt, completion):
    assert TASKS[name].row(row) == chat(prompt, completion)


@pytest.mark.parametrize(
    ("name", "row"),
    [("sst2", {"sentence": "a fine film ", "label": 1}), ("gsm8k", {"question": "1+1?", "answer": "#### 2"})],
)
def test_a_model_is_measured_on_what_it_was_tuned_on(tmp_path, name, row):
    case = utility_task(f"{name}:{write(tmp_path / 'rows.jsonl', [row])}").cases[0]
    assert case.turns == TASKS[name].row(row)["prompt"]


def test_every_task_is_pinned_to_a_commit():
    assert all(len(task.source.revision) == 40 for task in TASKS.values())


def test_a_file_is_split_the_same_way_each_time(tmp_path):
    splits = load_task("sst2", write(tmp_path / "sst2.jsonl", SST2))
    test = {row[0]["content"] for row in splits["test"]["prompt"]}
    assert len(splits["train"]) + len(splits["test"]) == 400
    assert 5 <= len(test) <= 40
    backwards = load_task("sst2", write(tmp_path / "reversed.jsonl", SST2[::-1]))
    assert {row[0]["content"] for row in backwards["test"]["prompt"]} == test
    assert not test & {row[0]["content"] for row in splits["train"]["prompt"]}


def test_published_rows_without_an_answer_are_left_out_and_said(tmp_path, caplog):
    rows = [{"instruction": f"do {i}", "input": "", "output": ["", "  ", "done"][i % 3]} for i in range(300)]
    with caplog.at_level("WARNING"):
        splits = load_task("code", write(tmp_path / "code.jsonl", rows))
    kept = [row for split in splits.values() for row in split]
    assert sorted(row["prompt"][0]["content"] for row in kept) == sorted(f"do {i}" for i in range(2, 300, 3))
    assert {row["completion"][0]["content"] for row in kept} == {"done"}
    assert "200 of 300 rows of" in caplog.text


@pytest.mark.parametrize("other", ["test", "validation"])
def test_a_folder_has_a_file_for_each_split(tmp_path, other):
    write(tmp_path / "train.jsonl", SST2[:3])
    write(tmp_path / f"{other}.jsonl", SST2[3:5])
    splits = load_task("sst2", str(tmp_path))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3, "test": 2}


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("mnli", SST2, "`task='mnli'` is unknown. Choose from: gsm8k, sst2, code"),
        ("gsm8k", SST2, r"columns \['sentence', 'label'\]. It needs `question` and `answer`"),
        ("sst2", [{"sentence": "x", "label": -1}], "`label=-1` .*must be 0 or 1"),
    ],
)
def test_bad_tasks_are_refused(tmp_path, name, rows, message):
    with pytest.raises(ValueError, match=message):
        load_task(name, write(tmp_path / "rows.jsonl", rows))


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="is neither a folder nor a"):
        load_task("sst2", str(tmp_path / "nothing"))
    write(tmp_path / "test.jsonl", SST2[:2])
    with pytest.raises(ValueError, match=r"has the splits \['test'\], and no `train`"):
        load_task("sst2", str(tmp_path))


def test_a_hub_that_cannot_be_reached_names_the_remedy(monkeypatch):
    import datasets

    def load_dataset(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataUnavailable, match=r"'openai/gsm8k' \(revision 7403.*no route.*as `task_path`"):
        load_task("gsm8k")
