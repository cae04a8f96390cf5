"""Folders go to a Hub whole, through its troubles, and come back by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

from safe_sft.evidence import verify
from safe_sft.importance.file import Importance, Provenance
from tests.conftest import make_model, make_tokenizer
from tests.evidence.derived import make_evaluation_of, make_merge

from .server import Trouble


def importance(folder, **changes):
    """A file of two numbers."""
    made = {
        "estimator": "empirical",
        "space": "weight",
        "model": {"architecture": "Tiny", "vectors": "v", "matrices": "m", "adapter": None},
        "tokenizer": "t",
        "data": "d",
        "sequences": 3,
        "tokens": 7,
    }
    Importance({"w": torch.tensor([1.0, 3.0])}, Provenance(**{**made, **changes})).save(folder)
    return folder


def model(folder, **safety):
    """As much of a model's folder as matters, and what a run leaves beside it."""
    folder.mkdir()
    save_file({"w": torch.ones(2)}, folder / "model.safetensors")
    for name in ("config.json", "optimizer.pt", "training_args.bin", "partial-0.safetensors", "model.tmp"):
        (folder / name).write_text("{}")
    for left in ("checkpoint-3", "_teacher-1"):
        (folder / left).mkdir()
        (folder / left / "model.safetensors").write_text("{}")
    (folder / "README.md").write_text('---\ntags:\n- a\n---\npipeline("text-generation", model="out", device_map=1)\n')
    if safety:
        (folder / "safety.json").write_text(json.dumps(safety))
    return folder


MODEL_FILES = {"README.md", "config.json", "model.safetensors"}


def test_a_model_without_what_the_run_leaves_behind(hub, run_at, tmp_path):
    done = run_at("push", str(model(tmp_path / "m")), "--repo", "me/m", "--private")
    assert done.returncode == 0, done.stderr
    assert f"Pushed to {hub.url}/me/m" in done.stdout
    assert set(hub.repos["me/m"].files) == MODEL_FILES
    assert hub.repos["me/m"].private is True
    assert 'model="me/m"' in hub.text("me/m")
    assert hub.repos["me/m"].files["model.safetensors"] == (tmp_path / "m" / "model.safetensors").read_bytes()


def test_what_is_left_behind_can_be_asked_for(hub, run_here, tmp_path):
    done = run_here("push", str(model(tmp_path / "m")), "--repo", "me/m", "--include", "checkpoint-*")
    assert done.returncode == 0, done.stderr
    assert set(hub.repos["me/m"].files) == {*MODEL_FILES, "checkpoint-3/model.safetensors"}


def test_a_wrong_token_is_said_once_and_nothing_is_lost(hub, run_here, tmp_path):
    done = run_here("push", str(model(tmp_path / "m")), "--repo", "me/m", token="hf_" + "Wrong" * 7)
    assert done.returncode == 2
    assert "the Hub did not accept the token (401). Log in with `hf auth login`" in done.stderr
    assert f"Push it again with: safe-sft push {tmp_path / 'm'} --repo me/m" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.count("/repos/create") == 1
    assert {file.name for file in (tmp_path / "m").iterdir()} >= MODEL_FILES


TROUBLES = [
    Trouble("/repos/create", 429, headers={"Retry-After": "1"}),
    Trouble("/repos/create"),
    Trouble("/preupload/main", 503),
    Trouble("/commit/main", 500),
    Trouble("/commit/main"),
    Trouble("/commit/main", late=True),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: f"{t.path[1:]}-{t.status or 'broken'}{'-late' * t.late}")
def test_trouble_that_passes_is_waited_out(hub, run_here, tmp_path, trouble):
    hub.troubles.append(Trouble(**vars(trouble)))
    done = run_here("push", str(model(tmp_path / "m")), "--repo", "me/m")
    assert done.returncode == 0, done.stderr
    assert set(hub.repos["me/m"].files) == MODEL_FILES
    assert len(hub.repos["me/m"].commits) == 1  # also when the answer to the first one was lost
    assert hub.count(trouble.path) >= 2 or trouble.late


def test_an_upload_that_breaks_off_is_sent_again(hub, run_here, tmp_path):
    import hashlib

    folder = model(tmp_path / "m")
    path = "/lfs/" + hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    hub.troubles.append(Trouble(path))
    done = run_here("push", str(folder), "--repo", "me/m")
    assert done.returncode == 0, done.stderr
    assert hub.count(path) == 2


def test_a_model_that_failed_its_gate(hub, run_here, tmp_path):
    check = {"bound": "max_asr", "subject": "after", "limit": 0.05, "passed": False, "message": "ASR 0.5 (n=168)."}
    folder = model(tmp_path / "m", gate={"passed": False, "checks": [check]})
    refused = run_here("push", str(folder), "--repo", "me/m")
    assert refused.returncode == 1
    assert "failed its safety gate: max_asr (after): ASR 0.5 (n=168)." in refused.stderr
    assert hub.requests == []
    assert run_here("push", str(folder), "--repo", "me/m", "--ignore_gate").returncode == 0
    assert "safety.json" in hub.repos["me/m"].files


def test_a_merge_goes_to_the_hub(hub, run_here, tmp_path):
    for seed, name in enumerate(("aligned", "tuned")):
        make_model(seed).save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
    sides = ("--aligned", str(tmp_path / "aligned"), "--tuned", str(tmp_path / "tuned"))
    unmeasured = ("--push_to_hub", "--ignore_gate")
    refused = run_here("merge", *sides, "--weight", "0.5", "--output", str(tmp_path / "mine"), "--push_to_hub")
    assert refused.returncode == 2
    assert "pushes a merge that no gate has let through" in refused.stderr
    assert not (tmp_path / "mine").exists()
    done = run_here("merge", *sides, "--weight", "0.5", "--output", str(tmp_path / "mine"), *unmeasured)
    assert done.returncode == 0, done.stderr
    assert {"README.md", "merge_config.json", "model.safetensors", "tokenizer.json"} <= set(hub.repos["me/mine"].files)
    hub.troubles.append(Trouble("/repos/create", 403))
    again = ("--weight", "0.5", "--output", str(tmp_path / "mine"), "--overwrite", *unmeasured)
    refused = run_here("merge", *sides, *again)
    assert refused.returncode == 2
    assert f"safe-sft push {tmp_path / 'mine'} --repo mine" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_merge_with_an_evaluation_that_has_a_gate(hub, run_here, tmp_path):
    folder = make_merge(model(tmp_path / "m"))
    assert run_here("push", str(folder), "--repo", "me/m").returncode == 1
    assert hub.requests == []
    evaluation = str(make_evaluation_of(tmp_path / "e", folder))
    done = run_here("push", str(folder), "--repo", "me/m", "--evaluation", evaluation)
    assert done.returncode == 0, done.stderr
    assert "evidence/evaluations/1/evidence/measured.json" in hub.repos["me/m"].files
    for name, content in hub.repos["me/m"].files.items():
        (tmp_path / "down" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "down" / name).write_bytes(content)
    assert verify(tmp_path / "down").evaluations[0].measured.passed


def test_importance_goes_and_comes_back_by_name(hub, run_here, run_at, tmp_path):
    folder = importance(tmp_path / "i")
    done = run_here("push", str(folder), "--repo", "me/i")
    assert done.returncode == 0, done.stderr
    assert set(hub.repos["me/i"].files) == {"README.md", "importance.safetensors"}
    card = hub.text("me/i")
    assert "importance_path: me/i" in card
    assert "| safety rows | 3 (7 supervised tokens), digest `d` |" in card
    names = ["me/i", "hf://me/i", f"hf://me/i@{hub.repos['me/i'].head}"]
    load = "import sys; from safe_sft.importance import Importance"
    load += "\nfor name in sys.argv[1:]: print(Importance.load(name).tensors['w'].tolist())"
    loaded = run_at(*names, "hf://me/none", code=load)
    assert loaded.stdout.splitlines() == ["[1.0, 3.0]"] * 3, loaded.stderr
    assert "is neither a folder nor a repository of the Hub with a importance.safetensors" in loaded.stderr


def test_a_folder_of_nothing_known_is_refused(hub, run_here, tmp_path):
    done = run_here("push", str(tmp_path), "--repo", "me/x")
    assert done.returncode == 2
    assert "holds no model" in done.stderr
    assert hub.requests == []
