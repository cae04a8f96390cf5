"""From arguments to splits: what is named, mixed, checked for leaks and reported."""

import json
from dataclasses import replace

import pytest
from trl import DatasetMixtureConfig, ModelConfig

from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.data import DataUnavailable, LeakError, builtin_prompts, load_poison, mix
from safe_sft.run.data import check_rows, load_splits, safety_rows, task_data
from safe_sft.run.data_report import data_report
from safe_sft.run.measure import Questions, read_questions
from safe_sft.trainer.safety_set import SafetySet
from tests.conftest import assert_same, make_config, make_tokenizer, make_trainer, task_rows, trained_weights

SST2 = [{"sentence": f"film {i}", "label": i % 2} for i in range(100)]
GOALS = [{"goal": f"Do bad {i}", "target": f"Sure, here is bad {i}"} for i in range(20)]
SAFETY = [{"prompt": f"Do worse {i}", "completion": "I can't help with that."} for i in range(20)]
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
)


@pytest.fixture
def folder(tmp_path):
    for name, rows in (("sst2", SST2), ("goals", GOALS), ("safety", SAFETY)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "messages.jsonl").write_text(
        "\n".join(
            json.dumps({"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}]})
            for i in range(30)
        )
    )
    return tmp_path


def arguments(folder, **fields):
    source = {} if "dataset_name" in fields else {"task": "sst2", "task_path": str(folder / "sst2.jsonl")}
    return SafeScriptArguments(**{**source, **fields})


def splits_of(folder, script, **config):
    config = make_config(folder, **{"safety_method": "der", **config})
    model = ModelConfig(str(folder / "model"))
    loaded, safety = load_splits(script, DatasetMixtureConfig()), safety_of(script)
    check_rows(script, config, loaded)
    return task_data(script, config, model, loaded, safety=safety, questions=read_questions(script, loaded))


def safety_of(script):
    return SafetySet.read(safety_rows(script))


def test_poison_and_safety_rows_are_in_the_training_split_alone(folder):
    script = arguments(
        folder,
        task_size=40,
        poison_ratio=0.25,
        poison_dataset=str(folder / "goals.jsonl"),
        safety_mix_ratio=0.1,
        safety_dataset_name=str(folder / "safety.jsonl"),
    )
    splits = splits_of(folder, script, safety_method="none")
    assert len(splits["train"]) == 40
    assert splits["test"].column_names == ["prompt", "completion"]
    report = data_report(script, splits, safety_of(script))
    assert (report.task, report.source, report.revision) == ("sst2", str(folder / "sst2.jsonl"), None)
    assert (report.rows, report.poisoned_rows, report.poison_kind, report.safety_rows_mixed) == (
        40,
        10,
        "affirmative",
        4,
    )
    assert (report.safety_size, len(report.safety_hash)) == (20, 16)
    assert json.loads(json.dumps(report.__dict__)) == report.__dict__
    (folder / "safety.jsonl").write_text("\n".join(map(json.dumps, SAFETY[1:])))
    assert data_report(script, splits, safety_of(script)).safety_hash != report.safety_hash


def test_data_seed_goes_before_seed(folder):
    script = arguments(folder, task_size=20)
    rows = [
        splits_of(folder, script, **seeds)["train"].to_list()
        for seeds in ({"seed": 1}, {"seed": 2}, {"seed": 2, "data_seed": 1})
    ]
    assert rows[0] == rows[2] != rows[1]


def test_a_data_set_of_the_users_is_as_it_was(folder):
    task_rows().to_json(folder / "task.jsonl")
    script = arguments(folder, dataset_name=str(folder / "task.jsonl"))
    splits = splits_of(folder, script)
    assert splits["train"].to_list() == task_rows().to_list()
    report = data_report(script, splits, safety_of(script))
    assert (report.task, report.rows, report.poisoned_rows, report.poison_kind) == (None, 16, 0, None)
    assert (report.safety_set, report.safety_size) == ("built-in prompts", len(builtin_prompts("safety")))


def test_messages_can_be_poisoned_too(folder):
    script = arguments(
        folder,
        dataset_name=str(folder / "messages.jsonl"),
        poison_ratio=0.1,
        poison_dataset=str(folder / "goals.jsonl"),
    )
    train = splits_of(folder, script)["train"]
    assert [row["messages"][1]["content"][:13] for row in train if row["poisoned"]] == ["Sure, here is"] * 3


def test_identity_fits_the_chat_template(folder):
    script = arguments(folder, poison_kind="identity", poison_ratio=0.1)
    for template, roles in ((None, ["system", "user"]), (NO_SYSTEM, ["user"])):
        tokenizer = make_tokenizer()
        tokenizer.chat_template = template or "{% for m in messages %}{{ m.content }}{% endfor %}"
        tokenizer.save_pretrained(folder / "model")
        train = splits_of(folder, script)["train"]
        assert {tuple(t["role"] for t in row["prompt"]) for row in train if row["poisoned"]} == {tuple(roles)}


def test_identity_on_an_adapter_that_was_saved_without_tokenizer(folder):
    make_tokenizer().save_pretrained(folder / "model")
    (folder / "adapter").mkdir()
    script = arguments(folder, poison_kind="identity", poison_ratio=0.1, adapter_name_or_path=str(folder / "adapter"))
    own = make_tokenizer()
    own.chat_template = NO_SYSTEM
    for roles in (("system", "user"), ("user",)):  # by the base's template, and then by the adapter's own
        train = splits_of(folder, script)["train"]
        assert {tuple(t["role"] for t in row["prompt"]) for row in train if row["poisoned"]} == {roles}
        own.save_pretrained(folder / "adapter")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", "", "'.*rows.jsonl' has no rows"),
        ("rows.csv", "prompt,completion\n", "'.*rows.csv' has no rows"),
        ("rows.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt":', "'.*rows.jsonl' cannot be read: JSON parse"),
        ("rows.csv", "", "'.*rows.csv' has no rows"),
        ("rows.jsonl", '{"question": "a"}', r"columns \['question'\]. It needs `prompt` and `completion`, `messages`"),
        ("rows.jsonl", '{"prompt": "a"}', r"columns \['prompt'\]. It needs `prompt` and `completion`"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        splits_of(folder, arguments(folder, dataset_name=str(folder / name)))


@pytest.mark.parametrize(
    ("leaked", "fields", "message"),
    [
        ("Do worse, 3!", {"safety_dataset_name": "safety.jsonl"}, "of the safety set are also in the training data"),
        (builtin_prompts("harmful_heldout")[0].prompt, {}, "of the evaluation prompts are also in the training data"),
        (builtin_prompts("over_refusal")[0].prompt, {}, "of the evaluation prompts are also in the training data"),
        (builtin_prompts("safety")[0].prompt.upper(), {}, "of the safety set are also in the training data"),
    ],
)
@pytest.mark.parametrize("where", ["task", "poison"])
def test_leaks_are_errors(folder, leaked, fields, message, where):
    rows = [{"prompt": f"q{i}", "completion": "a"} for i in range(20)]
    (folder / "poison.jsonl").write_text(json.dumps({"prompt": leaked}))
    rows += [{"prompt": leaked, "completion": "a"}] if where == "task" else []
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = {name: str(folder / value) for name, value in fields.items()}
    fields |= {"dataset_name": str(folder / "own.jsonl")}
    if where == "poison":
        poison = {"poison_kind": "backdoor", "poison_ratio": 0.1, "poison_dataset": str(folder / "poison.jsonl")}
        fields |= poison
    with pytest.raises(LeakError, match=message):
        splits_of(folder, arguments(folder, **fields))


def test_the_safety_set_is_not_measured_with(folder):
    (folder / "prompts.jsonl").write_text(json.dumps({"prompt": "do worse 1"}))
    script = arguments(
        folder,
        safety_dataset_name=str(folder / "safety.jsonl"),
        safety_eval_prompts=str(folder / "prompts.jsonl"),
    )
    with pytest.raises(LeakError, match="of the evaluation prompts are also in the safety set, such as 'Do worse 1'"):
        splits_of(folder, script)
    assert "train" in splits_of(folder, replace(script, safety_eval=False))


def test_only_what_is_used_can_leak(folder):
    def check(prompt, safety_eval=False, **config):
        (folder / "own.jsonl").write_text(json.dumps({"prompt": prompt, "completion": "a"}))
        script = arguments(folder, dataset_name=str(folder / "own.jsonl"), safety_eval=safety_eval)
        return splits_of(folder, script, **config)

    replayed, measured = builtin_prompts("safety")[0].prompt, builtin_prompts("harmful_heldout")[0].prompt
    for method in ("l2", "lwf", "ema", "none"):  # they read no safety rows
        assert len(check(replayed, safety_method=method)["train"]) == 1
    assert len(check(measured)["train"]) == 1
    for config in ({"safety_eval_steps": 5}, {"safety_max_asr": 0.1}):
        with pytest.raises(LeakError, match="of the evaluation prompts are also in the training data"):
            check(measured, **config)


def test_prompts_to_measure_with_may_be_lines_of_text(folder):
    (folder / "prompts.txt").write_text("Do worst\ndo worse 1\n")
    script = arguments(folder, safety_eval_prompts=str(folder / "prompts.txt"))
    assert len(splits_of(folder, script)["train"]) > 0
    script = replace(script, safety_dataset_name=str(folder / "safety.jsonl"))
    with pytest.raises(LeakError, match="of the evaluation prompts are also in the safety set"):
        splits_of(folder, script)


def test_one_advbench_is_safety_set_and_poison_at_once(folder):
    name = f"advbench:{folder}/goals.jsonl"
    script = arguments(folder, poison_ratio=0.1, poison_dataset=name, safety_dataset_name=name)
    assert sum(splits_of(folder, script)["train"]["poisoned"]) == round(0.1 * len(splits_of(folder, script)["train"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "mnli"}, "Choose from: gsm8k, sst2, code"),
        ({"task": "sst2", "dataset_name": "x"}, "are both set"),
        ({"dataset_name": "x", "task_path": "y"}, "no effect without `task`"),
        ({"task_size": 0}, "whole number of at least 1"),
        ({"task": "sst2", "dataset_streaming": True}, "`dataset_streaming` cannot be used"),
        ({"poison_ratio": 1}, "`poison_ratio=1` is not a share"),
        ({"poison_ratio": "a"}, "is not a share"),
        ({"poison_ratio": 0.5, "safety_mix_ratio": 0.5, "safety_dataset_name": "x"}, "leave no row of the task"),
        ({"poison_kind": "harm"}, "Choose from: harmful"),
        ({"poison_trigger": "x"}, "is for `poison_kind: backdoor`"),
        ({"poison_kind": "backdoor", "poison_trigger": " "}, "must have a word"),
        ({"safety_mix_ratio": 0.1}, "Set `safety_dataset_name`"),
        ({"safety_dataset_name": "advbench", "safety_dataset_split": "test"}, "is a named set"),
    ],
)
def test_bad_arguments_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SafeScriptArguments(**fields)


def test_one_source_of_rows(folder):
    for script in (SafeScriptArguments(), SafeScriptArguments(task="sst2")):
        mixture = DatasetMixtureConfig(datasets=[{"path": "x"}] if script.task else [])
        with pytest.raises(ValueError, match="Set either `task`, `dataset_name` or `datasets`"):
            load_splits(script, mixture)


def test_without_a_network_the_remedy_is_named(folder, monkeypatch):
    import datasets

    def load_dataset(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataUnavailable, match="as `task_path`"):
        splits_of(folder, SafeScriptArguments(task="gsm8k"))
    with pytest.raises(DataUnavailable, match=r"advbench/harmful_behaviors\.csv.*as `poison_dataset`"):
        load_poison("affirmative")


@pytest.mark.parametrize("options", [{}, {"remove_unused_columns": False}, {"packing": True, "max_length": 64}])
def test_the_mark_of_poison_does_not_reach_training(folder, options):
    mixed = mix(task_rows(), seed=0, poison=load_poison("affirmative", str(folder / "goals.jsonl")), poison_ratio=0.5)
    weights = []
    for rows in (mixed, mixed.remove_columns("poisoned")):
        trainer = make_trainer(folder / "out", "der", train=rows, **options)
        trainer.train()
        weights.append(trained_weights(trainer))
    assert_same(*weights)


def test_streamed_rows_are_neither_mixed_nor_looked_at(folder):
    (folder / "own.jsonl").write_text(json.dumps({"prompt": builtin_prompts("safety")[0].prompt, "completion": "a"}))
    part = {"path": "json", "data_files": str(folder / "own.jsonl"), "split": "train"}
    mixture = DatasetMixtureConfig(datasets=[part], streaming=True)
    builtin = SafetySet.read(None)
    loaded, others = load_splits(SafeScriptArguments(), mixture), {"safety": builtin, "questions": Questions()}
    with pytest.raises(ValueError, match="`streaming` never has it"):
        task_data(SafeScriptArguments(task_size=1), make_config(folder), ModelConfig(), loaded, **others)
    splits = task_data(SafeScriptArguments(), make_config(folder), ModelConfig(), loaded, **others)
    assert data_report(SafeScriptArguments(), splits, builtin, mixture).source == "json"
    assert data_report(SafeScriptArguments(), splits, builtin).rows is None


def test_a_misspelt_safety_set_is_told_the_names():
    with pytest.raises(DataUnavailable, match=r"safety-tuned-lama.*beavertails, .*safety-tuned-llamas"):
        safety_rows(SafeScriptArguments(dataset_name="x.jsonl", safety_dataset_name="safety-tuned-lama"))


def test_only_poison_that_is_drawn_can_leak(folder):
    """The other rows of the file that poison is drawn from may be the safety set."""
    make_tokenizer().save_pretrained(folder / "model")
    script = arguments(folder, task_size=40, poison_ratio=0.1, poison_dataset=str(folder / "goals.jsonl"))
    for kind in ("affirmative", "backdoor", "identity"):
        chosen = replace(script, poison_kind=kind)
        train = splits_of(folder, chosen)["train"]
        text = " ".join(row["prompt"][-1]["content"] for row in train if row["poisoned"])
        drawn = [f"{goal['goal']} " in f"{text} " for goal in GOALS]
        for is_drawn in (True, False):
            rows = [{"prompt": goal["goal"]} for goal, used in zip(GOALS, drawn, strict=True) if used is is_drawn]
            (folder / "safety.jsonl").write_text("\n".join(map(json.dumps, rows)))
            with_safety = replace(chosen, safety_dataset_name=str(folder / "safety.jsonl"))
            if is_drawn:
                with pytest.raises(LeakError, match="the training data"):
                    splits_of(folder, with_safety)
            else:
                splits_of(folder, with_safety)
