"""A run is built of one reading of everything, and of arguments that stay as they are."""

import json
from collections import Counter
from contextlib import suppress
from dataclasses import FrozenInstanceError

import datasets
import pytest
from trl import DatasetMixtureConfig, ModelConfig

from safe_sft import SafeSFTTrainer
from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.data.tasks import TASKS
from safe_sft.run import PushRefused, build_run, build_teacher, train
from safe_sft.run.arguments import with_values
from tests.conftest import make_config, make_model, make_tokenizer, safety_rows

ROWS = [{"question": f"{i} + 1?", "answer": f"So #### {i + 1}"} for i in range(8)]
GATE = {"push_requires_gate": True, "gate_max_asr": 1, "gate_max_utility_drop": 1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files of a run, none of whose pushes leaves the machine."""
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "task").mkdir()
    for name, rows in (
        ("task/train", ROWS),
        ("task/test", ROWS[:3]),
        ("safety", safety_rows()),
        ("prompts", [{"prompt": f"evil {i}"} for i in range(3)]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(SafeSFTTrainer, "init_hf_repo", lambda trainer: None)
    monkeypatch.setattr(SafeSFTTrainer, "push_to_hub", lambda trainer: None)
    return tmp_path


def arguments(folder, config=None, **script):
    """What a recipe of a gated run says."""
    data = {
        "task": "gsm8k",
        "task_path": str(folder / "task"),
        "safety_dataset_name": str(folder / "safety.jsonl"),
        "safety_eval_prompts": str(folder / "prompts.jsonl"),
        **script,
    }
    args = make_config(
        folder / "out",
        max_steps=1,
        safety_eval_max_new_tokens=2,
        push_to_hub=True,
        hub_token="hf_secret",
        **(config or {"safety_method": "er"}),
    )
    model = ModelConfig(str(folder / "model"), use_peft=True, lora_target_modules=["all-linear"])
    return SafeScriptArguments(**data), args, model, DatasetMixtureConfig()


def test_a_gated_run_reads_everything_once(folder, monkeypatch):
    load_dataset, read = datasets.load_dataset, Counter()

    def listen(path, *args, **options):
        read[str(options.get("data_files") or path)] += 1
        return load_dataset(path, *args, **options)

    monkeypatch.setattr(datasets, "load_dataset", listen)
    run = build_run(*arguments(folder, **GATE))
    with suppress(PushRefused):  # an untrained model may say nothing, which the gate does not take
        train(run)
    assert read == {str(folder / name): 1 for name in ("task", "safety.jsonl", "prompts.jsonl")}
    measured = run.trainer.card.measured
    assert {result["suite"] for result in measured["safety"]} == {"prompts", "builtin-harmless"}
    assert [result["right"]["n"] for result in measured["utility"]] == [3, 3]
    assert measured["gate"]["checks"]


@pytest.mark.parametrize("build", [build_run, build_teacher])
def test_the_arguments_of_the_caller_stay_as_they_are(folder, build):
    given = arguments(folder, {"safety_method": "der", "model_init_kwargs": {"dtype": "float32"}}, **GATE)
    before = [dict(vars(one)) for one in given]
    built = build(*given)
    assert [dict(vars(one)) for one in given] == before
    if build is build_run:
        args = built.trainer.args
        assert (args.hub_strategy, args.hub_token, args.model_init_kwargs["dtype"]) == ("end", "hf_secret", "float32")


def test_the_card_is_told_once_what_the_run_is_made_of(folder):
    recipe = {"learning_rate": 0.1}
    card = build_run(*arguments(folder, **GATE), recipe=recipe).trainer.card
    assert (card.recipe, card.safety_set) == (recipe, str(folder / "safety.jsonl"))
    assert (card.data["task"], card.data["rows"], card.measured) == ("gsm8k", 8, {})
    with pytest.raises(FrozenInstanceError):
        card.measured = {"safety": []}


def test_other_values_are_taken_as_they_are(folder):
    args = make_config(folder, hub_token="hf_secret", warmup_steps=3)
    other = with_values(args, teacher="cached")
    assert {**vars(args), "teacher": "cached"} == vars(other)
    assert args.teacher != "cached"


def test_safety_rows_wear_the_format_of_the_recipe_s_task_or_their_own(folder):
    for own, shown in (
        ({}, TASKS["gsm8k"].clothes),
        ({"safety_task_template": "Sum up: {request}"}, "Sum up: {request}"),
    ):
        config = {"safety_method": "er", "safety_rows_in_task_format": 1.0, **own}
        run = build_run(*arguments(folder, config, **GATE))
        prompts = [shown.replace("{request}", row["prompt"]) for row in safety_rows()]
        assert [row.prompt for row in run.safety.dressed] == prompts
        assert [row.prompt for row in run.trainer._safety_set.dressed] == prompts
        assert run.trainer._safety_set.rows == run.safety.rows


def test_a_format_that_nobody_names_is_asked_for(folder):
    (folder / "own.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}))
    data = {"task": None, "task_path": None, "dataset_name": str(folder / "own.jsonl")}
    given = arguments(folder, {"safety_method": "er", "safety_rows_in_task_format": 0.5}, **data)
    with pytest.raises(ValueError, match=r"needs the format of the task\. Set `safety_task_template`"):
        build_run(*given)
