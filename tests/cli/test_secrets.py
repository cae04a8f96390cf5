"""Secrets that a user gives to a command are in none of its files and in nothing that it prints."""

import json
import shutil

import pytest
import yaml

from safe_sft.cli.main import main
from tests.cli.test_cli import RECIPE
from tests.conftest import make_model, make_tokenizer, safety_rows, task_rows

# Put together here, so that no text of this file looks like a token.
TOKEN = "hf_" + "Pl4nted1" * 4
PLANTED = {
    "opaque": "planted-opaque-1",
    "env": "planted-env-2",
    "address": "planted-address-3",
    "kwargs": "planted-kwargs-4",
    "look": TOKEN,
    "hub": "planted-hub-5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("secrets")
    make_model().save_pretrained(path / "model")
    make_tokenizer().save_pretrained(path / "model")
    task_rows().to_json(path / "task.jsonl")
    (path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    (path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"evil {i}"}) for i in range(3)))
    recipe = yaml.safe_load(RECIPE.format(folder=path)) | {
        "hub_token": PLANTED["hub"],
        "model_init_kwargs": {"token": PLANTED["kwargs"]},
        "run_name": f"with {TOKEN}",
        "merge_after_training": "linear",
        "env": {
            "MY_CREDENTIALS": PLANTED["opaque"],
            "PLAIN_SETTING": PLANTED["env"],
            "DATABASE_URL": f"postgres://me:{PLANTED['address']}@host/db",
        },
    }
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return path


def leaks(folder, said):
    """Which planted secrets are in which file, or in what was printed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    found = {path.name: path.read_bytes() for path in files} | {"said": (said.out + said.err).encode()}
    return [
        (name, what) for name, content in found.items() for what, text in PLANTED.items() if text.encode() in content
    ]


def test_training_and_what_follows_it(folder, capfd, monkeypatch):
    for name in ("MY_CREDENTIALS", "PLAIN_SETTING", "DATABASE_URL"):
        monkeypatch.setenv(name, "")  # which the recipe sets; to be as before afterwards
    assert main(["train", "--config", str(folder / "recipe.yaml")]) == 0
    out = folder / "out"
    assert {"README.md", "safety.json", "training_args.bin"} <= {path.name for path in out.iterdir()}
    assert "float32" not in (card := (out / "README.md").read_text())
    assert "model_init_kwargs" in card
    assert leaks(out, capfd.readouterr()) == []
    evaluated = folder / "evaluation"
    words = ["--prompts", str(folder / "prompts.jsonl"), "--max_new_tokens", "2", "--output", str(evaluated)]
    assert main(["evaluate", "--model", str(folder / "model"), "--name", f"a {TOKEN}", *words]) == 0
    assert leaks(evaluated, capfd.readouterr()) == []


def test_merging(folder, capfd, monkeypatch):
    monkeypatch.setenv("MY_CREDENTIALS", PLANTED["opaque"])
    named = folder / f"tuned-{PLANTED['opaque']}-{TOKEN}"
    shutil.copytree(folder / "model", named)
    weights = folder / "weights.yaml"
    weights.write_text("default: 0.5\n'*mlp*': 0.25\n")
    sides = ["merge", "--aligned", str(folder / "model"), "--tuned", str(named)]
    assert main([*sides, "--weight", str(weights), "--output", str(folder / "merged")]) == 0
    words = ["--task_file", str(folder / "task.jsonl"), "--prompts", str(folder / "prompts.jsonl")]
    assert main([*sides, "--weight", "0,1", "--sweep", str(folder / "sweep"), *words, "--max_new_tokens", "2"]) == 0
    said = capfd.readouterr()
    assert {"README.md", "model.safetensors"} <= {path.name for path in (folder / "merged").iterdir()}
    assert leaks(folder / "merged", said) == leaks(folder / "sweep", said) == []
    with pytest.raises(SystemExit):
        main(["merge", "--aligned", str(folder / "model"), "--tuned", f"./{PLANTED['opaque']}", "--weight", TOKEN])
    assert PLANTED["opaque"] not in (error := capfd.readouterr().err)
    assert TOKEN not in error


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_errors(folder, capsys, monkeypatch, debug):
    monkeypatch.setenv("SAFE_SFT_DEBUG", "")
    monkeypatch.setenv("MY_CREDENTIALS", PLANTED["opaque"])
    names = [f"me/{TOKEN}", f"./{PLANTED['opaque']}", f"http://me:{PLANTED['address']}@host/model"]
    for name in names:
        with pytest.raises(SystemExit):
            main([*debug, "evaluate", "--model", name])
    with pytest.raises(SystemExit):
        main(["train", "--config", str(folder / "recipe.yaml"), f"--hub_tokn={TOKEN}"])
    said = capsys.readouterr()
    assert "***" in said.err
    assert not [what for what, text in PLANTED.items() if text in said.err + said.out]
