import json
import subprocess
import sys

import pytest
import torch

from safe_sft.cli import importance as cli
from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.importance import ESTIMATORS, SPACES, Importance, anchor_space, load_importance
from safe_sft.run.data import safety_rows as safety_rows_of
from safe_sft.storage.names import IMPORTANCE_FILE
from tests.conftest import make_model, make_tokenizer, safety_rows
from tests.importance.helpers import lora_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_model().save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    rows = [*safety_rows(3), {"prompt": "bad and without an answer", "completion": None}]
    (folder / "safety.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def run(inputs, output, *extra: str) -> int:
    given = [
        "--model",
        str(inputs / "model"),
        "--safety_dataset",
        str(inputs / "safety.jsonl"),
        "--output",
        str(output),
    ]
    return cli.main([*given, "--max_new_tokens", "4", "--dtype", "float32", *extra])


def test_declaring_the_options_imports_no_torch():
    code = "import argparse, sys; from safe_sft.cli.importance import add_arguments as a;"
    code += "a(argparse.ArgumentParser()); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_choices_are_those_of_the_library():
    assert (set(cli.ESTIMATORS), set(cli.SPACES)) == (set(ESTIMATORS), set(SPACES))


def test_the_file_fits_a_training_run_with_lora(inputs, tmp_path, capsys):
    assert run(inputs, tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [IMPORTANCE_FILE]
    assert "from 4 rows" in capsys.readouterr().out
    model = lora_model(dtype=torch.float32)
    space = anchor_space(model, None)
    importance = load_importance(str(tmp_path / "out"), model, make_tokenizer(), space, estimator="empirical")
    space.weigh(importance.tensors)
    assert importance.normalization == "mean"


def test_the_file_fits_full_tuning(inputs, tmp_path):
    run(inputs, tmp_path, "--space", "adapter", "--estimator", "mas", "--normalization", "none")
    model = make_model()
    space = anchor_space(model, None)
    space.weigh(load_importance(str(tmp_path), model, make_tokenizer(), space, estimator="mas").tensors)


@pytest.mark.parametrize("space", SPACES)
def test_the_file_fits_an_adapter_that_is_tuned_further(inputs, tmp_path, space):
    from peft import PeftModel

    lora_model(trained=True, dtype=torch.float32).save_pretrained(tmp_path / "adapter")
    run(inputs, tmp_path / "out", "--adapter", str(tmp_path / "adapter"), "--space", space)
    model = PeftModel.from_pretrained(make_model(), tmp_path / "adapter", is_trainable=True)
    anchored = anchor_space(model, space)
    loaded = load_importance(str(tmp_path / "out"), model, make_tokenizer(), anchored, estimator="empirical")
    anchored.weigh(loaded.tensors)


def test_stages_add_up(inputs, tmp_path):
    run(inputs, tmp_path / "one")
    run(inputs, tmp_path / "two", "--previous", str(tmp_path / "one"), "--decay", "0.5")
    one, two = (Importance.load(tmp_path / name) for name in ("one", "two"))
    assert two.factor == pytest.approx(1.5 * one.factor, rel=1e-2)
    assert all(torch.allclose(two.tensors[name], one.tensors[name], rtol=2e-2) for name in one.tensors)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--previous", "p", "--decay", "1.5"], "between 0 and 1"),
        (["--previous", "/nonexistent"], "neither a folder nor a repository"),
    ],
)
def test_mistakes_are_one_line(inputs, tmp_path, capsys, extra, said):
    with pytest.raises(SystemExit) as stopped:
        run(inputs, tmp_path, *extra)
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("safe-sft importance: error: ")
    assert said in line


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("safety-tuned-llamas", {"instruction": "bad {}", "input": "", "output": "No {}."}),
        ("advbench", {"goal": "bad {}", "target": "Sure {}"}),
    ],
)
def test_a_named_safety_set_is_what_it_is_in_training(inputs, tmp_path, capsys, name, row):
    rows = [{key: value.format(i) for key, value in row.items()} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    named = f"{name}:{tmp_path / 'rows.jsonl'}"
    assert run(inputs, tmp_path / "out", "--safety_dataset", named) == 0
    trained_on = safety_rows_of(SafeScriptArguments(safety_dataset_name=named))
    assert f"from {len(trained_on)} rows" in capsys.readouterr().out
