"""No command runs the code that comes with a model, or asks on standard input whether to, unless it is told to."""

import json
import os
import pty
import subprocess
import sys
from unittest import mock

import pytest

from tests.conftest import make_model, make_tokenizer, safety_rows, status_of, task_rows

ASKED = "--model {folder}/model --prompts {folder}/prompts.jsonl --max_new_tokens 2"
COMMANDS = {
    "init": "--model {folder}/own --data gsm8k",
    "plan": "--config {folder}/recipe.yaml --model_name_or_path {folder}/own",
    "train": "--config {folder}/recipe.yaml --model_name_or_path {folder}/own",
    "train with its template": "--config {folder}/recipe.yaml --chat_template_path {folder}/own --trust_remote_code=1",
    "importance": "--model {folder}/own --output {folder}/importance",
    "evaluate": "--model {folder}/own",
    "evaluate by a classifier": f"{ASKED} --judge classifier:{{folder}}/own --judge_labels LABEL_0=refused",
    "evaluate by a guard": f"{ASKED} --judge guard:wildguard={{folder}}/own",
    "merge": "--aligned {folder}/own --tuned {folder}/own --sweep {folder}/sweep --task_file {folder}/task.jsonl",
    "repair": "{folder}/own --aligned {folder}/model --output {folder}/r --task_loss {folder}/task.jsonl "
    "--max_task_loss_increase 1 --max_asr 0.5 --suite {folder}/prompts.jsonl --max_new_tokens 2 --way merge",
}
RECIPE = """
model_name_or_path: {folder}/model
dataset_name: {folder}/task.jsonl
safety_dataset_name: {folder}/safety.jsonl
safety_eval: false
output_dir: {folder}/out
max_steps: 1
use_cpu: true
bf16: false
report_to: none
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("code")
    for name in ("model", "own"):
        make_model().save_pretrained(path / name)
        make_tokenizer().save_pretrained(path / name)
    own = path / "own"
    code = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M", "AutoModelForSequenceClassification": "own.M"}
    edited(own / "config.json", model_type="own", auto_map=code)
    edited(own / "tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": ["own.T", None]})
    (own / "own.py").write_text(f"open({str(path / 'ran')!r}, 'w')")
    task_rows().to_json(path / "task.jsonl")
    (path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    (path / "prompts.jsonl").write_text(json.dumps({"prompt": "evil"}))
    (path / "recipe.yaml").write_text(RECIPE.format(folder=path))
    return path


def edited(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", COMMANDS)
def test_it_ends_with_one_line_and_asks_nothing(folder, monkeypatch, capsys, name):
    asked = mock.Mock(return_value="y")  # who is asked may say yes
    monkeypatch.setattr("builtins.input", asked)
    command, *_ = name.split()
    status = status_of([command, *(word.format(folder=folder) for word in COMMANDS[name].split())])
    said = capsys.readouterr().err
    assert status == 2, said
    assert not (folder / "ran").exists()
    assert not asked.called
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"safe-sft {command}: error: ")


def test_a_terminal_is_not_asked_either(folder):
    ours, theirs = pty.openpty()  # on which a question would be answered with yes
    os.write(ours, b"y\ny\n")
    start = [sys.executable, "-m", "safe_sft.cli.main", "evaluate", "--model", str(folder / "own")]
    done = subprocess.run(start, stdin=theirs, capture_output=True, text=True, timeout=300)
    os.close(ours)
    os.close(theirs)
    assert not (folder / "ran").exists()
    assert done.returncode == 2, done.stdout + done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("safe-sft evaluate: error: ")
