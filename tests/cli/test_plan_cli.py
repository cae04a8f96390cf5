"""`safe-sft plan` on a machine without a GPU and without the Hub."""

import json
from pathlib import Path

import pytest
from peft import get_peft_model

from safe_sft.cli.main import main

from ..conftest import lora, make_model, make_tokenizer, task_rows

RECIPES = Path(__file__).parents[2] / "recipes"
LLAMA = ["plan", "--config", str(RECIPES / "llama2-7b" / "der.yaml"), "--task", "gsm8k"]


def plan(capsys, *argv) -> dict:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_llama2_7b_recipe(capsys):
    found = plan(capsys, *LLAMA, "--gpu", "RTX4090", "--rows", "7473", "--row_tokens", "200")
    assert found["parameters"] == {"total": 6_738_415_616, "trainable": 39_976_960, "basis": "exact"}
    assert found["schedule"]["replay_row_share"] == pytest.approx(1 / 9)  # one row for eight
    assert found["schedule"]["steps"] == 3 * 468
    items = {item["name"]: item for item in found["memory"]}
    # 32 layers of 4 · 4096² and 3 · 4096 · 11008 elements, half a byte and a little more each.
    assert 6_476_005_376 * 0.5 < items["quantised weights and their scales"]["size"] < 6_476_005_376 * 0.53
    assert "Gram matrix of the head (der)" not in items  # of the squared distances alone
    assert items["activations: inputs of the layers"]["basis"] == "estimated"
    (gpu,) = found["gpus"]
    assert (gpu["name"], gpu["fits"], gpu["basis"]) == ("RTX4090", True, "estimated")
    assert gpu["hours"] > 0


def test_table(capsys):
    assert main(LLAMA) == 0
    out = capsys.readouterr().out
    for word in ("6,738,415,616", "39,976,960", "B200", "exact", "estimated", "not known", "give --rows"):
        assert word in out


def test_local_model_and_data_are_counted(tmp_path, capsys):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    task_rows().to_json(tmp_path / "task.jsonl")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model_name_or_path: {tmp_path / 'model'}\ndataset_name: {tmp_path / 'task.jsonl'}\noutput_dir: out\n"
        "safety_method: none\nper_device_train_batch_size: 4\nnum_train_epochs: 1\nsafety_eval: false\n"
    )
    found = plan(capsys, "plan", "--config", str(recipe))
    assert found["parameters"]["total"] == sum(p.numel() for p in make_model().parameters())
    assert found["schedule"]["steps"] == 4
    assert not any("assumed" in note or "every row" in note for note in found["assumptions"])


def test_a_run_that_continues_an_adapter(tmp_path, capsys):
    base = make_tokenizer()
    base.chat_template = None
    base.save_pretrained(tmp_path / "base")
    make_model().save_pretrained(tmp_path / "base")
    adapter = get_peft_model(make_model(), lora())
    adapter.save_pretrained(tmp_path / "adapter")
    make_tokenizer().save_pretrained(tmp_path / "adapter")
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (tmp_path / "task.jsonl").write_text("\n".join([json.dumps({"messages": chat})] * 8))
    line = ["plan", "--model_name_or_path", str(tmp_path / "base"), "--dataset_name", str(tmp_path / "task.jsonl")]
    line += ["--output_dir", "out", "--num_train_epochs", "1", "--bf16", "false", "--per_device_train_batch_size", "2"]
    line += ["--adapter_name_or_path", str(tmp_path / "adapter"), "--safety_method", "der+l2"]
    found = plan(capsys, *line)
    trained = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    items = {item["name"]: item for item in found["memory"]}
    assert found["parameters"] == {
        "total": sum(p.numel() for p in make_model().parameters()),
        "trainable": trained,
        "basis": "exact",
    }
    # The aligned model is the adapter itself: it has anchors, and the teacher's states are kept.
    assert items["anchors"]["size"] == 4 * trained
    assert items["teacher cache"]["where"] == "disk"
    assert found["schedule"]["steps"] == 4
    assert not any("every row" in note for note in found["assumptions"])  # tokenised, with the adapter's template


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model_name_or_path", "no/such"], "`model_name_or_path='no/such'` is not known"),
        (["--gpu", "Z80"], "`--gpu Z80` is unknown"),
        (["--safety_method", "ewcc"], "`safety_method='ewcc'` is unknown"),
        (["--utilization", "2"], "`--utilization 2.0`"),
        (["--use_peft", "false"], "`use_peft: true`"),
        (["--adapter_name_or_path", "no/such/adapter"], "`adapter_name_or_path='no/such/adapter'`"),
    ],
)
def test_errors_are_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*LLAMA, *argv])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("safe-sft plan: error")]
    assert message in line


def test_broken_recipe(tmp_path, capsys):
    recipe = tmp_path / "broken.yaml"
    recipe.write_text("- not\n- a mapping\n")
    with pytest.raises(SystemExit) as stopped:
        main(["plan", "--config", str(recipe)])
    assert stopped.value.code == 2
    assert str(recipe) in capsys.readouterr().err


def test_help_names_its_own_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["plan", "--help"])
    assert stopped.value.code == 0
    assert "--row_tokens" in capsys.readouterr().out
