"""One table of exit statuses, one line of error and one spelling of options, the same for every command."""

import argparse
import json
import os
import subprocess
import sys
from importlib import import_module

import pytest

from safe_sft.cli.command import command, underscored
from safe_sft.cli.exits import DEBUG
from safe_sft.cli.main import COMMANDS, main
from safe_sft.evaluation import Rate, SuiteUnavailable
from safe_sft.merging.sweep import Scores
from safe_sft.run import PushRefused
from safe_sft.storage.hub import HubError
from tests.cli.test_cli import RECIPE
from tests.conftest import make_model, make_tokenizer, safety_rows, status_of, task_rows

RECIPE_COMMANDS = ("plan", "train", "teacher")
#: What each command needs, and beside it nothing.
NEEDED = {
    "init": ["--model", "meta-llama/Llama-2-7b-chat-hf", "--data", "gsm8k"],
    "poison": ["--input", "{folder}/task.jsonl", "--ratio", "0.1", "--output", "{folder}/poisoned.jsonl"],
    "importance": ["--model", "{folder}/model", "--output", "{folder}/importance"],
    "evaluate": ["--model", "{folder}/model"],
    "merge": ["--aligned", "{folder}/model", "--tuned", "{folder}/model", "--weight", "0.5", "--output", "{folder}/m"],
    "repair": ["{folder}/model", "--aligned", "{folder}/other", "--output", "{folder}/repaired", "--max_asr", "0.1"],
    "push": ["{folder}/model", "--repo", "me/model"],
    "screen": ["--model", "{folder}/model", "--input", "{folder}/task.jsonl", "--output", "{folder}/screening"],
    "verify": ["{folder}/model"],
    "demo": ["--output", "{folder}/demo"],
    "experiment": ["--config", "{folder}/recipe.yaml"],
    **{name: ["--config", "{folder}/recipe.yaml"] for name in RECIPE_COMMANDS},
}
#: What is put after it, and names a file that is not there.
MISSING = {
    "init": ["--data", "missing.jsonl"],
    "poison": ["--input", "missing.jsonl"],
    "importance": ["--model", "./missing"],
    "evaluate": ["--prompts", "missing.jsonl"],
    "merge": ["--tuned", "./missing"],
    "repair": ["--aligned", "./missing"],
    "push": None,  # has one folder
    "screen": ["--input", "missing.jsonl"],
    "verify": None,  # has one folder
    "demo": ["--output", "{folder}/task.jsonl/missing"],
    "experiment": ["--config", "missing.yaml"],
    **{name: ["--dataset_name", "missing.jsonl"] for name in RECIPE_COMMANDS},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("exits")
    make_model().save_pretrained(path / "model")
    make_tokenizer().save_pretrained(path / "model")
    task_rows().to_json(path / "task.jsonl")
    (path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    (path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"evil {i}"}) for i in range(3)))
    recipe = RECIPE.format(folder=path).replace("der+l2", "der").replace("0.5+0.05", "0.5")
    (path / "recipe.yaml").write_text(recipe)
    return path


def line_of(name, folder, more=()):
    return [word.format(folder=folder) for word in (*NEEDED[name], *more)]


def error_of(capsys, name):
    """The line on stderr that says what is wrong; libraries may have warned before it."""
    *others, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"safe-sft {name}: error: ")
    assert not any(other.startswith(("usage", "Traceback")) for other in others)
    return line


def test_every_command_is_here():
    assert NEEDED.keys() == MISSING.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_misspelt_option(name, folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, *line_of(name, folder, ["--of-no-command", "1"])])
    assert stopped.value.code == 2
    assert "--of_no_command" in error_of(capsys, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_file(name, folder, capsys):
    alone = {"push": ["missing", "--repo", "me/model"], "verify": ["missing"]}
    words = alone.get(name) or line_of(name, folder, MISSING[name])
    with pytest.raises(SystemExit) as stopped:
        main([name, *words])
    assert stopped.value.code == 2
    assert "missing" in error_of(capsys, name)


@pytest.mark.parametrize("name", RECIPE_COMMANDS)
@pytest.mark.parametrize("text", ["a: [1\n", "- a\n", None])
def test_a_recipe_that_cannot_be_read(name, text, tmp_path, capsys):
    if text is not None:
        (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        main([name, "--config", str(tmp_path / "recipe.yaml")])
    assert stopped.value.code == 2
    assert "recipe.yaml" in error_of(capsys, name)


@pytest.mark.parametrize("words", [[], ["trian"], ["--versoin"], ["--debug"]])
def test_no_command_that_is_known(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("safe-sft: error: ")


def gate_failed(folder):
    check = {"bound": "max_asr", "subject": "after", "limit": 0.05, "passed": False, "message": "ASR 0.5 (n=168)."}
    path = folder / "failed"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "safety.json").write_text(json.dumps({"gate": {"passed": False, "checks": [check]}}))
    return path


def test_a_gate_that_evaluate_finds_not_kept(folder):
    words = ["--prompts", "{folder}/prompts.jsonl", "--max_asr", "0.05", "--max_new_tokens", "2"]
    assert main(["evaluate", *line_of("evaluate", folder, words)]) == 1


def test_a_gate_that_a_pushed_model_has_not_kept(folder, capsys):
    assert main(["push", str(gate_failed(folder)), "--repo", "me/model"]) == 1
    assert "failed its safety gate" in error_of(capsys, "push")


def test_a_bound_that_no_merge_keeps(folder, monkeypatch):
    monkeypatch.setattr("safe_sft.merging.sweep.measure", lambda *_, **__: Scores(Rate(1, 2), Rate(0, 2), Rate(1, 1)))
    words = ["--sweep", "{folder}/sweep", "--task_file", "{folder}/task.jsonl", "--max_asr", "0.1"]
    assert main(["merge", *line_of("merge", folder, words)]) == 1


@pytest.mark.parametrize(("error", "status"), [(PushRefused("It failed."), 1), (HubError("No network."), 2)])
def test_a_model_that_is_trained_and_not_pushed(folder, monkeypatch, capsys, error, status):
    def train(*_):
        raise error

    monkeypatch.setattr("safe_sft.run.build_run", lambda *_, **__: None)
    monkeypatch.setattr("safe_sft.run.train", train)
    assert status_of(["train", *line_of("train", folder)]) == status
    assert error_of(capsys, "train") == f"safe-sft train: error: {error}"


def test_training_that_its_bound_stops(folder, monkeypatch, capsys):
    measured = {"eval_asr": 0.5, "eval_asr_low": 0.4, "eval_asr_high": 0.6}
    monkeypatch.setattr("safe_sft.trainer.callbacks.SafetyEvalCallback._measure", lambda self: measured)
    words = ["--safety-max-asr", "0.1", "--safety-eval-steps", "2", "--safety_eval", "false"]
    assert main(["train", *line_of("train", folder, [*words, "--output_dir", "{folder}/stopped"])]) == 1
    assert "Training was stopped at step 2" in error_of(capsys, "train")
    assert (folder / "stopped" / "adapter_model.safetensors").is_file()


def test_a_number_that_is_not_finite_is_one_line(folder, capsys):
    words = ["--safety_weight", "1e300", "--safety_eval", "false", "--output_dir", "{folder}/infinite"]
    with pytest.raises(SystemExit) as stopped:
        main(["train", *line_of("train", folder, words)])
    assert stopped.value.code == 2
    assert "Training stopped in step 1: der is not finite" in error_of(capsys, "train")


def test_a_term_that_is_not_computed_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr("safe_sft.methods.der.DER.loss", lambda self, step: None)
    words = ["--safety_eval", "false", "--output_dir", "{folder}/lacking"]
    with pytest.raises(SystemExit) as stopped:
        main(["train", *line_of("train", folder, words)])
    assert stopped.value.code == 2
    assert "The safety term of `der` was not computed in step 1" in error_of(capsys, "train")


def failing(error):
    def run(_):
        raise error

    return command("demo", list, run)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("several\nlines"),
        FileNotFoundError(2, "No such file", "f"),
        PermissionError("not without being asked for"),
        ConnectionError("no route"),
        ModuleNotFoundError("No module named 'lm_eval'"),
        SuiteUnavailable("not here"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_foreseen_is_one_line(error, capsys):
    with pytest.raises(SystemExit) as stopped:
        failing(error)([])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"safe-sft demo: error: {' '.join(str(error).split())}\n"


def test_what_is_not_foreseen_shows_where_it_was_and_is_no_failed_bound(capsys):
    with pytest.raises(SystemExit) as stopped:
        failing(RuntimeError("a defect"))([])
    assert stopped.value.code == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback")
    assert last == "safe-sft demo: error: RuntimeError: a defect"


@pytest.mark.parametrize("words", [["--debug", "push"], ["push", "--debug"], ["push"]])
def test_debug_shows_where_an_error_came_from(words, monkeypatch, capsys):
    monkeypatch.setenv(DEBUG, "0" if "--debug" in words else "1")
    with pytest.raises(SystemExit) as stopped:
        main([*words, "missing", "--repo", "me/model"])
    assert stopped.value.code == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback")
    assert last.startswith("safe-sft push: error: The folder 'missing' does not exist")


def test_debug_of_transformers_is_left_to_it(monkeypatch):
    monkeypatch.setenv(DEBUG, "")
    assert command("demo", list, len)(["--debug", "underflow_overflow"]) == 2
    assert not os.environ[DEBUG]
    assert command("demo", list, len)(["--debug"]) == 0
    assert os.environ[DEBUG]


@pytest.mark.parametrize("name", ["push", "init"])
def test_a_module_ends_as_its_command_does(name):
    start = [sys.executable, "-m", f"safe_sft.cli.{name}", "--of_no_command"]
    done = subprocess.run(start, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith(f"safe-sft {name}: error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in RECIPE_COMMANDS])
def test_options_are_declared_with_underscores(name):
    parser = argparse.ArgumentParser()
    import_module(f"safe_sft.cli.{name}").add_arguments(parser)
    assert not [o for action in parser._actions for o in action.option_strings if "-" in o.removeprefix("--")[1:]]


def test_dashes_are_for_options_alone():
    values = ["0.1", "--name=--a-b", "-a-b", "--two-words more", "a-b", "--", "--x-y"]
    assert underscored(["--max-asr", *values]) == ["--max_asr", *values]
    assert underscored(["--x-y=a-b", "--no-a-b"]) == ["--x_y=a-b", "--no_a_b"]


def test_recipes_take_dashes_too(folder, capsys):
    assert main(["plan", *line_of("plan", folder, ["--row-tokens", "9", "--safety-weight=0.2", "--json"])]) == 0
    assert json.loads(capsys.readouterr().out)
