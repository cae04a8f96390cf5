"""A later stage starts from what the one before has left, protects what it is told to, and measures earlier tasks."""

import json

import pytest
import torch
from safetensors.torch import load_file
from trl import DatasetMixtureConfig, ModelConfig

from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.hub import read_safety
from safe_sft.run import build_run, train
from tests.conftest import assert_same, logged, make_config, make_model, make_tokenizer, safety_rows, task_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, two tasks, and what a first stage has left of it: an adapter and a whole model."""
    path = tmp_path_factory.mktemp("stages")
    make_model().save_pretrained(path / "model")
    make_tokenizer().save_pretrained(path / "model")
    task_rows(40).to_json(path / "one.jsonl")
    task_rows(40).map(lambda row: {"prompt": f"say it: {row['prompt']}"}).to_json(path / "two.jsonl")
    (path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    (path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"evil {i}"}) for i in range(3)))
    for peft in (True, False):
        train(build(path, f"left-{peft}", peft, {"safety_eval": False, "dataset_name": str(path / "one.jsonl")}))
    return path


def build(folder, name, peft, script, model="model", **config):
    data = {
        "dataset_name": str(folder / "two.jsonl"),
        "safety_dataset_name": str(folder / "safety.jsonl"),
        **({"safety_eval_prompts": str(folder / "prompts.jsonl")} if script.get("safety_eval") is not False else {}),
        **script,
    }
    settings = {"safety_method": "none", "safety_eval_max_new_tokens": 3, "learning_rate": 0.2, **config}
    args = make_config(folder / name, **settings)
    of = ModelConfig(
        str(folder / model), use_peft=peft, lora_target_modules=["all-linear"] if peft else None, lora_dropout=0.0
    )
    return build_run(SafeScriptArguments(**data), args, of, DatasetMixtureConfig())


def second(folder, name, peft, anchor, script=(), **config):
    """A second stage, built."""
    left, more = str(folder / f"left-{peft}"), {"safety_eval": False, **dict(script)}
    if anchor == "first":
        return build(folder, name, peft, {**more, "start_from": left}, **config)
    if peft:
        return build(folder, name, peft, {**more, "adapter_name_or_path": left}, **config)
    return build(folder, name, peft, more, model=f"left-{peft}", **config)


def weights(folder, peft):
    return load_file(folder / ("adapter_model.safetensors" if peft else "model.safetensors"))


@pytest.mark.parametrize("peft", [True, False])
def test_without_a_method_both_anchors_train_bit_for_bit_alike(folder, peft):
    for anchor in ("first", "last"):
        train(second(folder, f"{anchor}-{peft}", peft, anchor))
    assert_same(weights(folder / f"first-{peft}", peft), weights(folder / f"last-{peft}", peft))
    moved, left = weights(folder / f"first-{peft}", peft), weights(folder / f"left-{peft}", peft)
    assert any((moved[name] != left[name]).any() for name in left)


@pytest.mark.parametrize("peft", [True, False])
@pytest.mark.parametrize("method", ["l2", "ewc", "mas", "der", "lisa"])
def test_the_first_model_is_protected_though_training_starts_elsewhere(folder, method, peft, tmp_path):
    terms = {}
    for anchor in ("first", "last"):
        run = second(folder, tmp_path / anchor, peft, anchor, safety_method=method, max_steps=1)
        train(run)
        terms[anchor] = logged(run.trainer, "safety_loss")[0]
    assert terms["first"] > 1e-6  # the first step is away from what is protected already
    assert abs(terms["last"]) < 0.01 * terms["first"]  # 0, but for rounding


@pytest.mark.parametrize(("method", "peft"), [("lwf", True), ("csft", True), ("csft", False)])
def test_the_first_model_is_at_hand_on_the_rows_of_the_task(folder, method, peft, tmp_path):
    run = second(folder, tmp_path / method, peft, "first", safety_method=method, max_steps=1)
    train(run)
    assert abs(logged(run.trainer, "safety_loss")[0]) > 1e-6


def test_the_average_begins_at_the_first_model(folder, tmp_path):
    for anchor in ("first", "last"):
        config = {"safety_method": "ema", "ema_decay": 0.75, "max_steps": 1, "learning_rate": 0.0}
        train(second(folder, tmp_path / anchor, False, anchor, **config))
    aligned, left = weights(folder / "model", False), weights(folder / "left-False", False)
    by_hand = {name: 0.75 * aligned[name] + 0.25 * left[name] for name in left}
    assert_same(weights(tmp_path / "first", False), by_hand, rtol=1e-5, atol=1e-6)
    assert_same(weights(tmp_path / "last", False), left, rtol=1e-5, atol=1e-6)


def test_earlier_tasks_are_measured_on_the_rows_that_were_held_out_of_them(folder, tmp_path):
    one, two = str(folder / "one.jsonl"), str(folder / "two.jsonl")
    train(build(folder, tmp_path / "1", True, {"dataset_name": one}))
    first = read_safety(str(tmp_path / "1"))
    script = {"start_from": str(tmp_path / "1"), "earlier_tasks": [{"name": "stage 1", "dataset_name": one}]}
    train(build(folder, tmp_path / "2", True, {"dataset_name": two, **script}))
    measured = read_safety(str(tmp_path / "2"))

    def losses(safety, task):
        return {entry["model"]: entry["loss"]["value"] for entry in safety["task_loss"] if entry["task"] == task}

    assert losses(measured, "stage 1")["before"] == losses(first, "task")["before"]  # the aligned model's
    assert losses(measured, "stage 1")["after"] not in losses(first, "task").values()
    assert losses(measured, "task").keys() == {"before", "after"}
    assert {entry["model"] for entry in measured["safety"]} == {"before", "after"}


@pytest.mark.parametrize(
    ("peft", "script", "config", "says"),
    [
        (True, {"start_from": "nowhere"}, {}, "`start_from='nowhere'` holds neither .* Give the folder"),
        (False, {"start_from": "left-True"}, {}, "is an adapter, .* Set `use_peft: true`"),
        (True, {"start_from": "left-False"}, {}, "is a whole model, .* Set `use_peft: false`"),
        (True, {"earlier_tasks": [{"poison_ratio": 1}]}, {}, "`poison_ratio: 1`, .* Its keys are: name, task"),
        (True, {"earlier_tasks": [{"task": "nothing"}]}, {}, "Entry 0 of `earlier_tasks` cannot be used"),
    ],
)
def test_what_cannot_be_started_from_is_named(folder, monkeypatch, tmp_path, peft, script, config, says):
    monkeypatch.chdir(folder)
    with pytest.raises((ValueError, OSError), match=says):
        build(folder, tmp_path / "x", peft, {"safety_eval": "earlier_tasks" in script, **script}, **config)


def test_an_adapter_of_other_settings_is_not_started_from(folder, tmp_path):
    of = ModelConfig(str(folder / "model"), use_peft=True, lora_r=4, lora_target_modules=["all-linear"])
    script = SafeScriptArguments(
        dataset_name=str(folder / "two.jsonl"), safety_eval=False, start_from=str(folder / "left-True")
    )
    with pytest.raises(ValueError, match=r"`r` 4, and that of .* has 16\. Set the LoRA settings"):
        build_run(script, make_config(tmp_path, safety_method="none"), of, DatasetMixtureConfig())


def test_the_weights_of_another_model_are_not_started_from(folder, tmp_path):
    make_model(hidden_size=64).save_pretrained(tmp_path / "other")
    run = build(folder, tmp_path / "out", False, {"safety_eval": False, "start_from": str(tmp_path / "other")})
    with pytest.raises(ValueError, match=r"does not fit the aligned model: .* tensors differ"):
        train(run)


def test_what_starts_from_a_stage_ends_on_finite_weights(folder, tmp_path):
    run = second(folder, tmp_path / "sum", True, "first", safety_method="der+ewc", max_steps=2)
    train(run)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "sum", True).values())
