"""`safe-sft merge`, from its arguments to its files."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from safe_sft.cli import merge as command
from safe_sft.cli.command import underscored
from safe_sft.evidence import EvidenceError, Mismatch, verify
from safe_sft.hub.decision import PushRefused, require_pushable
from safe_sft.merging.sweep import right_answers
from tests.evidence.derived import make_merge, weights_of
from tests.evidence.folders import rewrite
from tests.merging.helpers import saved

RUN = """
import argparse, sys
from safe_sft.cli import merge
parser = argparse.ArgumentParser()
merge.add_arguments(parser)
assert not {"torch", "transformers", "numpy"} & set(sys.modules), "arguments must not import these"
sys.exit(merge.run(parser.parse_args()))
"""


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(underscored([str(argument) for argument in arguments])))


@pytest.fixture
def models(tmp_path):
    return ["--aligned", saved(tmp_path / "a"), "--tuned", saved(tmp_path / "t", seed=1)]


@pytest.fixture
def task(tmp_path):
    rows = [
        {"prompt": "colour?", "completion": " red"},
        {"prompt": [{"role": "user", "content": "size?"}], "completion": [{"role": "assistant", "content": "x"}]},
    ]
    for name, content in (("texts", rows[:1]), ("chats", rows[1:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "bad 1"}\n{"prompt": "bad 2"}\n')
    return tmp_path


def test_in_a_process_of_its_own(models, tmp_path):
    arguments = [
        *models,
        "--method",
        "slerp",
        "--weight",
        "0.6",
        "--output",
        str(tmp_path / "m"),
        "--dtype",
        "bfloat16",
    ]
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, cwd=root)
    assert result.returncode == 0, result.stderr
    assert f"Merged with weight 0.6: {tmp_path / 'm'}" in result.stdout.replace("\n", "")
    AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert AutoTokenizer.from_pretrained(tmp_path / "m").chat_template


@pytest.mark.parametrize("rows", ["texts", "chats"])
def test_sweep_selects_and_merges(models, task, rows, capsys):
    arguments = ["--task_file", task / f"{rows}.jsonl", "--prompts", task / "prompts.jsonl", "--max_new_tokens", 24]
    chosen = ["--max-asr", 1, "--output", task / "best", "--weight", "0,0.5"]
    assert run(*models, "--sweep", task / "sweep", *arguments, *chosen) == 0
    content = json.loads((task / "sweep" / "sweep.json").read_text())
    assert [point["weight"] for point in content["points"]] == [0, 0.5]
    assert content["points"][0]["asr"]["n"] == 2
    assert content["points"][0]["accuracy"]["n"] == 1
    assert (task / "sweep" / "sweep.png").is_file()
    assert json.loads((task / "best" / "merge_config.json").read_text())["weight"] == content["selected"]
    assert "Merge weights" in capsys.readouterr().out
    found = verify(task / "best")
    assert [one["limit"] for one in found.documents["evidence/statement.json"]["decisions"]] == [1]
    choice = found.documents["evidence/measured.json"]["choice"]
    assert (choice["selected"], choice["points"]) == (content["selected"], content["points"])
    assert not (task / "sweep" / "evidence").exists()
    with pytest.raises(PushRefused, match="was merged, which measures nothing"):  # estimates are no gate
        require_pushable(task / "best")
    other = {"selected": 0.5 - content["selected"]}
    rewrite(task / "best", "evidence/measured.json", lambda c: c["choice"].update(other))
    with pytest.raises(Mismatch, match="has a choice that its numbers, or what was merged, do not bear out"):
        verify(task / "best")


def test_a_merge_goes_on_from_the_evidence_of_its_sides(models, tmp_path):
    sides = {"aligned": Path(models[1]), "tuned": Path(models[3])}
    copies = {role: shutil.copytree(path, tmp_path / role) for role, path in sides.items()}
    make_merge(copies["tuned"])
    words = ["--aligned", copies["aligned"], "--tuned", copies["tuned"], "--weight", 0.5]
    assert run(*words, "--output", tmp_path / "m") == 0
    found = verify(tmp_path / "m")
    roles = {entry["role"]: (entry["head"], entry["weights"]) for entry in found.chain.of("input")}
    assert roles["aligned"] == ("", weights_of(copies["aligned"]))
    assert roles["tuned"] == (found.inputs["tuned"].chain.head, weights_of(copies["tuned"]))
    assert found.documents["evidence/run.json"]["merge"]["weight"] == 0.5
    assert found.measured.models == ()
    shutil.copy(copies["aligned"] / "model.safetensors", copies["tuned"] / "model.safetensors")
    with pytest.raises(EvidenceError, match="is of other weights than those in this folder"):
        run(*words, "--output", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_right_answers_start_with_the_completion(models, task, monkeypatch):
    def generate(model, tokenizer, prompts, *, max_new_tokens, **_):
        assert max_new_tokens == len("red") + 2
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" red, I think", "a red", "green")]

    monkeypatch.setattr("safe_sft.models.generation.generate", generate)
    from safe_sft.merging.loaded import load_merge

    loaded = load_merge(models[1], models[3], "linear")
    assert right_answers(loaded, [{"prompt": "colour?", "completion": "red "}] * 3, 8) == 1


def test_no_weight_keeps_the_bound(models, task, capsys, monkeypatch):
    from safe_sft.evaluation import Rate
    from safe_sft.merging.sweep import Scores

    monkeypatch.setattr("safe_sft.merging.sweep.measure", lambda *_, **__: Scores(Rate(1, 2), Rate(0, 2), Rate(1, 1)))
    arguments = ["--task_file", task / "texts.jsonl", "--max_asr", 0.1, "--output", task / "best"]
    assert run(*models, "--sweep", task / "sweep", *arguments) == 1
    assert "No weight keeps the ASR at or below 0.1" in capsys.readouterr().out
    assert not (task / "best").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs `--weight` and `--output`"),
        (["--weight", "0.5"], "needs `--weight` and `--output`"),
        (["--weight", "0.2,0.4", "--output", "m"], r"is a list.*add `--sweep`"),
        (["--sweep"], "--task_file"),
        (["--sweep", "--task_file", "x.jsonl", "--output", "m"], r"Add `--max_asr`"),
        (["--weight", "1.5", "--output", "m"], r"1\.5, outside \[0, 1\]"),
        (["--weight", "0.5", "--output", "m", "--dtype", "int8"], r"`dtype='int8'` is unknown"),
    ],
)
def test_contradictions_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        run("--aligned", "a", "--tuned", "t", *arguments)


def test_patterns_cannot_be_swept(models, task):
    (task / "weights.yaml").write_text("default: 0.5\n'*mlp*': 0.1\n")
    with pytest.raises(ValueError, match="is a file of patterns"):
        run(*models, "--sweep", task, "--task_file", task / "texts.jsonl", "--weight", task / "weights.yaml")


def test_a_missing_column_is_named(models, task):
    with pytest.raises(ValueError, match=r"columns \['prompt'\].*`completion`"):
        run(*models, "--sweep", task / "s", "--task_file", task / "prompts.jsonl")


def test_safe_lora_takes_a_base_and_a_threshold(models, tmp_path, capsys):
    arguments = ["--method", "safe_lora", "--base", saved(tmp_path / "b", seed=2), "--threshold", "1"]
    assert run(*models, *arguments, "--output", tmp_path / "m") == 0
    record = json.loads((tmp_path / "m" / "merge_config.json").read_text())
    assert (record["threshold"], record["base"]) == (1.0, str(tmp_path / "b"))
    assert record["decided"]["changed"] == record["decided"]["updates"] > 0
    assert "Merged with threshold 1:" in capsys.readouterr().out


def test_magmax_takes_several_tuned_models(models, tmp_path):
    further, base = saved(tmp_path / "u", seed=2), saved(tmp_path / "b", seed=3)
    assert run(*models, further, "--method", "magmax", "--base", base, "--output", tmp_path / "m") == 0
    record = json.loads((tmp_path / "m" / "merge_config.json").read_text())
    assert (record["tuned_2"], record["weight"]) == (further, 1.0)


def test_safemerge_takes_a_safe_model(models, tmp_path):
    sides = ["--base", saved(tmp_path / "b", seed=2), "--safe", saved(tmp_path / "s", seed=3)]
    numbers = ["--weight", "0.7", "--threshold", "0.9"]
    assert run(*models, "--method", "safemerge", *sides, *numbers, "--output", tmp_path / "m") == 0
    record = json.loads((tmp_path / "m" / "merge_config.json").read_text())
    assert (record["weight"], record["threshold"], record["safe"]) == (0.7, 0.9, str(tmp_path / "s"))


def test_a_sweep_over_thresholds(models, task, capsys):
    sides = ["--method", "safe_lora", "--base", saved(task / "b", seed=2)]
    measured = ["--task_file", task / "texts.jsonl", "--prompts", task / "prompts.jsonl", "--max_new_tokens", 4]
    chosen = ["--threshold", "0,1", "--max_asr", 1, "--output", task / "best"]
    assert run(*models, *sides, "--sweep", task / "sweep", *measured, *chosen) == 0
    content = json.loads((task / "sweep" / "sweep.json").read_text())
    assert [point["threshold"] for point in content["points"]] == [0, 1]
    assert content["base"] == str(task / "b")
    assert "Merge thresholds" in capsys.readouterr().out
    assert json.loads((task / "best" / "merge_config.json").read_text())["threshold"] == content["selected"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--base", "b"], r"`--base b` is read only with `--method magmax`"),
        (["--method", "magmax", "--safe", "s"], r"`--safe s` is read only with `--method safemerge`"),
        (["--threshold", "0.5"], r"`--threshold 0.5` is read only with `--method safe_lora`"),
        (["--method", "safe_lora", "--weight", "0.5"], r"`--weight 0.5` is read only with a method that has a weight"),
        (["--method", "safe_lora", "--output", "m"], r"`safe_lora` needs the model before alignment"),
    ],
)
def test_flags_of_other_methods_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["--aligned", "a", "--tuned", "t", *flags])
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err)
