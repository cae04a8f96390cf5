"""`safe-sft init` writes recipes that the real parser reads and that fit."""

from unittest import mock

import pytest
import yaml

from safe_sft.cli.main import main
from safe_sft.cli.recipe_arguments import parse
from safe_sft.planning import plan
from safe_sft.planning.write_recipe import fitting

from ..conftest import make_model

LLAMA = ["init", "--model", "meta-llama/Llama-2-7b-chat-hf", "--data", "gsm8k"]


def parsed(path):
    return parse(["--config", str(path), "--use_cpu", "true"])


@pytest.mark.parametrize(("gpu", "quantized"), [("12GB", True), ("H100", False)])
@pytest.mark.parametrize("method", ["der", "none"])
def test_recipe_parses_and_fits(tmp_path, gpu, quantized, method):
    path = tmp_path / "recipe.yaml"
    assert main([*LLAMA, "--gpu", gpu, "--method", method, "--output", str(path)]) == 0
    script, args, model, _ = parsed(path)
    assert (script.task, script.dataset_name) == ("gsm8k", None)
    assert (args.safety_method, model.load_in_4bit, model.lora_target_modules) == (method, quantized, "all-linear")
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 16
    assert f"--config {path}" in path.read_text()


def test_a_tiny_local_model_needs_no_checkpointing(tmp_path, capsys):
    make_model().save_pretrained(tmp_path / "model")
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    assert main(["init", "--model", str(tmp_path / "model"), "--data", str(data), "--method", "der+l2"]) == 0
    recipe = yaml.safe_load(capsys.readouterr().out)
    assert recipe["dataset_name"] == str(data)
    assert (recipe["gradient_checkpointing"], recipe["safety_method"]) == (False, "der+l2")


def test_a_model_is_built_once_for_all_sizes_of_a_step(tmp_path, monkeypatch):
    make_model().save_pretrained(tmp_path / "model")
    built = mock.Mock(wraps=plan.plan_model)
    monkeypatch.setattr(plan, "plan_model", built)
    with pytest.raises(ValueError, match="does not fit"):
        fitting(str(tmp_path / "model"), "der", 0, "0GB")
    fitting(str(tmp_path / "model"), "der", 2**34, "16GB")
    assert len(built.mock_calls) == 2  # in 16 and in 4 bit
    make_model(num_hidden_layers=1).save_pretrained(tmp_path / "model")
    fitting(str(tmp_path / "model"), "der", 2**34, "16GB")
    assert len(built.mock_calls) == 3


@pytest.mark.parametrize("option", ["--overwrite", "--force"])
def test_a_file_is_not_overwritten_unasked(tmp_path, capsys, option):
    path = tmp_path / "recipe.yaml"
    make_model().save_pretrained(tmp_path / "model")
    start = ["init", "--model", str(tmp_path / "model"), "--data", "gsm8k", "--output", str(path)]
    path.write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        main(start)
    assert stopped.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main([*start, option]) == 0
    assert parsed(path)[1].safety_method == "der"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gpu", "6502"], "`--gpu 6502` is unknown"),
        (["--gpu", "4GB"], "does not fit"),
        (["--gpu", "T4"], "has no bf16"),
        (["--method", "ewcc"], "`safety_method='ewcc'` is unknown"),
        (["--model", "no/such"], "`model_name_or_path='no/such'` is not known"),
        (["--data", "missing.jsonl"], "'missing.jsonl' does not exist"),
    ],
)
def test_errors_are_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*LLAMA, *argv])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
