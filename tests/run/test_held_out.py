"""Clean rows of the task are kept out of training, and the task loss on them stands beside the attack success."""

import json

import pytest
from datasets import Dataset, DatasetDict
from trl import DatasetMixtureConfig, ModelConfig

from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.data import SafetyRow
from safe_sft.run import Run, build_run, train
from safe_sft.run.held_out import hold_out
from safe_sft.run.measure import Questions
from safe_sft.run.train import look_at_the_task
from safe_sft.trainer.safety_set import SafetySet
from safe_sft.trainer.task_refusals import TaskRefusals, warn_of_refusals
from tests.conftest import make_config, make_model, make_tokenizer, make_trainer, safety_rows

ROWS = [{"prompt": f"colour {i}?", "completion": f" red {i}", "poisoned": i % 4 == 0} for i in range(100)]


def splits(rows=ROWS, **more) -> DatasetDict:
    return DatasetDict({"train": Dataset.from_list(rows), **{k: Dataset.from_list(v) for k, v in more.items()}})


def script(**settings) -> SafeScriptArguments:
    return SafeScriptArguments(dataset_name="rows.jsonl", **settings)


@pytest.mark.parametrize(("size", "held"), [(64, 10), (4, 4), (0, 0)])
def test_clean_rows_leave_training_and_the_rest_stays_in_order(tmp_path, size, held):
    kept, rows = hold_out(script(task_eval_size=size), make_config(tmp_path), splits())
    names = [row["prompt"] for row in (rows.rows if rows else [])]
    assert len(names) == len(set(names)) == held
    assert not any(row["poisoned"] for row in (rows.rows if rows else []))
    assert [row["prompt"] for row in kept["train"]] == [r["prompt"] for r in ROWS if r["prompt"] not in names]


def test_the_seed_decides_which(tmp_path):
    def drawn(seed):
        return [row["prompt"] for row in hold_out(script(), make_config(tmp_path, seed=seed), splits())[1].rows]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_test_split_spares_the_training_rows(tmp_path):
    kept, rows = hold_out(script(task_eval_size=5), make_config(tmp_path), splits(test=ROWS[:50]))
    assert len(kept["train"]) == 100
    assert [row["prompt"] for row in rows.rows] == [f"colour {i}?" for i in range(0, 50, 10)]


def test_rows_that_the_task_needs_are_not_taken(tmp_path):
    assert len(hold_out(script(task_size=97), make_config(tmp_path), splits())[1].rows) == 3
    assert hold_out(script(task_size=100), make_config(tmp_path), splits())[1] is None
    assert hold_out(script(), make_config(tmp_path), splits(ROWS[:9]))[1] is None
    assert hold_out(script(safety_eval=False), make_config(tmp_path), splits())[1] is None


@pytest.mark.parametrize("size", [-1, 0.5, True])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="task_eval_size"):
        script(task_eval_size=size)


def test_a_run_shows_the_task_loss_before_and_after(tmp_path, capsys):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    for name, rows in (("task", ROWS), ("safety", safety_rows()), ("prompts", [{"prompt": "evil"}])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = SafeScriptArguments(
        dataset_name=str(tmp_path / "task.jsonl"),
        safety_dataset_name=str(tmp_path / "safety.jsonl"),
        safety_eval_prompts=str(tmp_path / "prompts.jsonl"),
    )
    args = make_config(
        tmp_path / "out", safety_method="er", max_steps=3, learning_rate=0.1, safety_eval_max_new_tokens=2
    )
    train(build_run(data, args, ModelConfig(str(tmp_path / "model")), DatasetMixtureConfig()))
    measured = json.loads((tmp_path / "out" / "safety.json").read_text())["task_loss"]
    before, after = (entry["loss"] for entry in measured)
    assert [entry["model"] for entry in measured] == ["before", "after"]
    assert after["value"] < before["value"]
    assert before["n"] == 10
    assert f"{after['value']:.3f} ±" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Task loss, nats per token ↓ | task | {tmp_path}" in card
    assert f"{after['value']:.3f} [" in card


def test_a_run_says_what_the_aligned_model_refuses_of_the_task(tmp_path, monkeypatch, caplog):
    model, tokenizer = make_model(), make_tokenizer()
    args = make_config(tmp_path)
    refused = TaskRefusals((SafetyRow("colour 4?", None),), 64, {})
    monkeypatch.setattr("safe_sft.trainer.task_refusals.find_refusals", lambda *_: refused)
    with caplog.at_level("WARNING"):
        warn_of_refusals(model, tokenizer, Dataset.from_list(ROWS), args)
    assert "refuses 1 of 64 requests of the task (of 100), such as 'colour 4?'" in caplog.text
    assert "safety_from_task: true" in caplog.text


@pytest.mark.parametrize(
    ("method", "end", "said"), [("der", ".", True), ("der+l2", ".", True), ("der", "", False), ("l2", ".", False)]
)
def test_a_run_says_which_refused_requests_no_replayed_row_is_like(tmp_path, monkeypatch, caplog, method, end, said):
    refused = TaskRefusals((SafetyRow("do harm", None), SafetyRow("do more harm", None)), 64, {})
    monkeypatch.setattr("safe_sft.trainer.task_refusals.find_refusals", lambda *_: refused)
    rows = [{"prompt": f"harm {i}{end}", "completion": "No, I can not"} for i in range(6)]
    trainer = make_trainer(tmp_path, method, safety=rows)
    with caplog.at_level("WARNING"):
        look_at_the_task(Run(trainer, script(), Questions(), Dataset.from_list(ROWS), SafetySet.read(rows)))
    assert "refuses 2 of 64 requests" in caplog.text
    assert ("2 of these 2 end without a punctuation mark, and 0 of the 6 safety rows do" in caplog.text) == said
