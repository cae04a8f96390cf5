"""The command line, from a YAML file: in a process of its own where it runs to its end."""

import json
import os
import subprocess
import sys

import pytest

from safe_sft.cli.main import main
from safe_sft.cli.recipe_arguments import parse
from safe_sft.cli.train import main as train
from tests.conftest import make_model, make_tokenizer, safety_rows, status_of, task_rows

RECIPE = """
model_name_or_path: {folder}/model
dataset_name: {folder}/task.jsonl
safety_dataset_name: {folder}/safety.jsonl
safety_eval_prompts: {folder}/prompts.jsonl
safety_eval_max_new_tokens: 4
output_dir: {folder}/out
safety_method: der+l2
safety_weight: 0.5+0.05
use_peft: true
lora_r: 4
lora_target_modules: all-linear
max_steps: 3
logging_steps: 1
per_device_train_batch_size: 4
use_cpu: true
bf16: false
report_to: none
gradient_checkpointing: false
dataloader_pin_memory: false
"""


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "safe_sft.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def error_of(capsys, arguments: list[str]) -> str:
    """Run a command here, which ends as one that cannot be run, and return what it says of it."""
    assert status_of(arguments) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli")
    make_model().save_pretrained(path / "model")
    make_tokenizer().save_pretrained(path / "model")
    task_rows().to_json(path / "task.jsonl")
    (path / "safety.jsonl").write_text("\n".join(map(json.dumps, [*safety_rows(), {"prompt": "bad"}])))
    (path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"evil {i}"}) for i in range(3)))
    (path / "recipe.yaml").write_text(RECIPE.format(folder=path))
    return path


@pytest.fixture(scope="module")
def trained(folder):
    return run("train", "--config", str(folder / "recipe.yaml"), "--learning_rate", "0.01")


def test_train_from_a_recipe_with_an_override(folder, trained):
    assert trained.returncode == 0, trained.stderr
    for heading in ("task loss", "safety loss", "ASR before", "ASR after"):
        assert heading in trained.stdout
    assert '"n": 3' in (folder / "out" / "safety.json").read_text()  # in the table it may be wrapped
    log = json.loads((folder / "out" / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
    assert f"{log[-1]['task_loss']:.4f}" in trained.stdout
    assert (folder / "out" / "adapter_model.safetensors").is_file()
    state = json.loads((folder / "out" / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["log_history"][1]["learning_rate"] < 0.011
    assert {"safety/der", "safety/l2", "task_loss"} <= set(state["log_history"][1])


def test_nothing_is_said_that_a_user_can_do_nothing_about(trained):
    assert trained.returncode == 0, trained.stderr
    for noise in ("Warning", "is deprecated", "gemm_4bit_forward"):
        assert noise not in trained.stderr


def test_evaluate_what_was_trained(folder, trained):
    assert trained.returncode == 0, trained.stderr
    result = run(
        *("evaluate", "--model", str(folder / "model"), "--adapter", str(folder / "out")),
        *("--prompts", str(folder / "prompts.jsonl"), "--output", str(folder / "evaluation"), "--max-new-tokens", "4"),
    )
    assert result.returncode == 0, result.stderr
    assert "ASR [95 % interval]" in result.stdout
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    assert results["asr"]["n"] == 3
    assert 0 <= results["asr"]["low"] <= results["asr"]["value"] <= results["asr"]["high"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--safety_metod", "der"], "safety_metod"),
        (["--safety_weigh", "1"], "safety_weigh"),
        (["--safety_method", "ewcc"], "`safety_method='ewcc'` is unknown"),
        (["--model_name_or_path", "./missing-model"], "missing-model"),
        (["--dataset_name", "missing.jsonl"], "The data file 'missing.jsonl' does not exist"),
        (["--dataset_train_split", "training"], "data set has no split 'training' (it has: train)"),
    ],
)
def test_bad_arguments_end_with_one_clear_line(folder, capsys, arguments, message):
    assert message in error_of(capsys, ["train", "--config", str(folder / "recipe.yaml"), *arguments])


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [("true", "finds no complete checkpoint in `output_dir="), ("nowhere", "'nowhere'` is no folder")],
)
def test_a_missing_checkpoint_is_found_before_training(folder, capsys, checkpoint, message):
    arguments = ["--config", str(folder / "recipe.yaml"), "--output_dir", str(folder / "new")]
    with pytest.raises(SystemExit) as stopped:
        train([*arguments, "--resume_from_checkpoint", checkpoint])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_value_of_the_wrong_type_is_not_buried_in_the_usage(capsys):
    with pytest.raises(SystemExit):
        train(["--poison_ratio", "10%"])
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("safe-sft train: error: ")
    assert "--poison-ratio: invalid float value: '10%'. `safe-sft train --help` says" in error


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"per_device_replay_batch_size": 2},
            "which is no argument. Write `replay_ratio`: safety rows for each",
        ),
        ({"learnin_rate": 1}, "the key `learnin_rate`, which is no argument. Did you mean `learning_rate`?"),
        ({"output_dir": None}, "says `output_dir: null`. Give the folder"),
        ({"dataset_name": "missing.jsonl"}, "The data file 'missing.jsonl' does not exist"),
        ({"model_name_or_path": None, "learning_rate": 1e-4}, "`model_name_or_path` is missing"),
        ({"per_device_train_batch_size": 0}, "`per_device_train_batch_size=0` must be"),
        ({}, "no GPU that computes in bfloat16, which is the default. Set `use_cpu: true`"),
    ],
)
def test_the_kind_of_machine_is_the_last_thing_to_complain_of(tmp_path, monkeypatch, capsys, keys, message):
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: False)
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"model_name_or_path": "m", "output_dir": "out", **keys}))
    with pytest.raises(SystemExit) as stopped:
        parse(["--config", str(path)])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_unknown_keys_of_a_recipe_are_errors(folder, capsys):
    recipe = folder / "unknown.yaml"
    recipe.write_text((folder / "recipe.yaml").read_text() + "load_in_4bits: true\n")
    assert "load_in_4bits" in error_of(capsys, ["train", "--config", str(recipe)])


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["demo", "--help"], ["--version"]])
def test_help_needs_no_torch(arguments):
    code = (
        "import sys; from safe_sft.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


def test_an_unknown_command_lists_those_there_are(capsys):
    assert "train" in error_of(capsys, ["trian"])


def test_a_teacher_cache_is_built_ahead_and_used(folder):
    extra = ("--safety_weight", "1+1", "--teacher_cache", str(folder / "teacher"), "--safety_eval", "false")
    recipe = ("--config", str(folder / "recipe.yaml"))
    assert main(["teacher", *recipe, *extra]) == 0
    parts = {file.name: file.stat().st_mtime_ns for file in (folder / "teacher").iterdir()}
    assert {"index.json", "part-00000.safetensors"} <= set(parts)
    assert main(["train", *recipe, *extra, "--output_dir", str(folder / "cached"), "--max_steps", "1"]) == 0
    assert {file.name: file.stat().st_mtime_ns for file in (folder / "teacher").iterdir()} == parts
