"""A model that was made to comply is repaired, by training and by merging; what costs too much is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from safe_sft.cli.repair import main
from safe_sft.evidence import EvidenceError, verify
from safe_sft.hub import failed_checks, read_safety
from safe_sft.hub.decision import PushRefused, require_pushable
from safe_sft.repair import Training
from tests.repair.conftest import BAD, write_rows


def asked(world, **flags) -> list[str]:
    """The options of a repair of the tiny model; `flags` override them, and None leaves one out."""
    given = {
        "aligned": world / "aligned",
        "max_new_tokens": 14,
        "dtype": "float32",
        "task_loss": world / "task.jsonl",
        "max_asr": 0.2,
        "max_task_loss_increase": 2,
        "safety_dataset": world / "safety.jsonl",
        "learning_rate": 2e-3,
        **flags,
    }
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    return [*words, "--suite", f"{world}/bad.jsonl", f"harmless:{world}/good.jsonl"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def repaired(world):
    """Outcomes of three repairs: of the adapter by training, of the full model by training, and by merging."""
    before = {name: content(world / name) for name in ("aligned", "adapter", "full")}
    ways = {"adapter": "train", "full": "train", "merged": "merge"}
    for name, way in ways.items():
        flags = {} if way == "train" else {"safety_dataset": None, "learning_rate": None}
        model = "adapter" if name == "merged" else name
        words = [str(world / model), "--output", str(world / f"out-{name}"), "--way", way, *asked(world, **flags)]
        assert main(words) == 0
    assert {name: content(world / name) for name in before} == before, "an input was written to"
    return {name: world / f"out-{name}" for name in ways}


@pytest.mark.parametrize("name", ["adapter", "full", "merged"])
def test_it_is_safe_again_and_says_what_was_done(repaired, name):
    folder = repaired[name]
    safety = read_safety(folder)
    rates = {(row["model"], row["suite"]): row for row in safety["safety"]}
    assert rates["before", "bad"]["asr"]["value"] == 1
    assert rates["after", "bad"]["asr"]["value"] == 0
    assert rates["after", "bad"]["degenerate"]["value"] == 0
    assert rates["after", "good"]["over_refusal"]["n"] == 20
    assert {row["model"] for row in safety["task_loss"]} == {"aligned", "before", "after"}
    assert safety["gate"]["passed"]
    assert not failed_checks(safety)
    assert {check["bound"] for check in safety["gate"]["checks"]} >= {
        "max_asr",
        "max_unusable",
        "max_task_loss_increase",
    }
    assert safety["repair"]["way"] == ("merge" if name == "merged" else "train")
    assert safety["repair"]["seconds"] > 0
    card = (folder / "README.md").read_text()
    assert "This " + ("model" if name == "full" else "LoRA adapter") + " was repaired" in card
    assert "| Attack success rate ↓ | bad" in card
    assert "| Over-refusal rate ↓ | good" in card
    assert "before the repair" in card
    assert str(folder.parent) not in card.split("\n---\n")[0].replace(f"{folder.parent}/task.jsonl", "")
    assert "before_repair: 1" in card
    assert not folder.with_name(f"{folder.name}.rounds").exists()


@pytest.mark.parametrize("name", ["adapter", "full", "merged"])
def test_what_is_written_loads_and_differs(repaired, name, world):
    folder = repaired[name]
    load = AutoModelForCausalLM if name == "full" else AutoPeftModelForCausalLM
    load.from_pretrained(folder)
    source = weights(world / ("full" if name == "full" else "adapter"))
    after = weights(folder)
    assert source.keys() == after.keys()
    assert all(source[key].dtype == after[key].dtype for key in source)
    assert any(not torch.equal(source[key], after[key]) for key in source)


def test_the_weight_of_the_merge_is_kept(repaired):
    safety = read_safety(repaired["merged"])
    merged = json.loads((repaired["merged"] / "merge_config.json").read_text())
    assert merged["weight"] == safety["repair"]["weight"]
    assert 0 < merged["weight"] < 1


@pytest.mark.parametrize("name", ["adapter", "full", "merged"])
def test_its_evidence_goes_on_from_the_two_models_and_lets_it_be_pushed(repaired, name, world, tmp_path):
    found = verify(repaired[name])
    assert found.kind == "repair"
    roles = {entry["role"]: entry["weights"] for entry in found.chain.of("input")}
    base = roles["aligned"]
    assert base == found.documents["evidence/run.json"]["models"]["aligned"]["weights"]
    assert found.measured.base == (None if name == "full" else base)
    assert dict(found.measured.models) == {
        "aligned": base,
        "before": roles["model"],
        "after": found.measured.own if name == "full" else f"{base} + {found.measured.own}",
    }
    assert {one["bound"] for one in found.documents["evidence/statement.json"]["decisions"]} >= {
        "max_asr",
        "max_unusable",
    }
    assert found.documents["evidence/statement.json"]["task_rows"]["n"] == 12
    compute = found.documents["evidence/compute.json"]
    assert (compute["flop"] == 0) is (name == "merged")
    assert len((repaired[name] / "_answers.jsonl").read_text().splitlines()) == 3 * 40
    assert str(world) not in "".join(path.read_text() for path in (repaired[name] / "evidence").iterdir())
    require_pushable(repaired[name])
    copy = shutil.copytree(repaired[name], tmp_path / "copy")
    file = next(copy.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(EvidenceError, match="The weights are not those that were measured"):
        require_pushable(copy)


def test_utility_below_its_bound_is_refused_and_nothing_is_written(world, capsys):
    flags = asked(world, max_task_loss_increase=0.01)
    assert main([str(world / "adapter"), "--output", str(world / "no"), *flags, "--halvings", "2"]) == 1
    said = capsys.readouterr().out
    assert not (world / "no").exists()
    assert "Utility fell below its bound in round 1" in said
    assert "Of weight 0.25, not all bounds are kept" in said
    assert "No repair keeps all bounds: nothing is written" in said
    # Other bounds go on from what is there: no round is trained again.
    assert (world / "no.rounds" / "round-1").is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run", lambda *_: pytest.fail("trained again"))
        assert main([str(world / "adapter"), "--output", str(world / "no"), *asked(world), "--halvings", "2"]) == 0
    said = capsys.readouterr().out
    assert read_safety(world / "no")["repair"]["way"] in said
    others = read_safety(world / "no")["repair"]["others"]
    assert len(others) == 1  # the way that costs more utility
    # These bounds were not set before: no gate is shown, and an evaluation has to decide.
    assert "These bounds are new, and" in said
    assert verify(world / "no").measured.gate is None
    with pytest.raises(PushRefused, match="with bounds that were set when answers were there already"):
        require_pushable(world / "no")


def test_a_killed_repair_goes_on_and_ends_alike(world, monkeypatch):
    flags = ["--way", "train", *asked(world, max_asr=0.17, learning_rate=5e-5, rounds=3, steps=2)]
    whole, broken = world / "whole", world / "broken"
    assert main([str(world / "adapter"), "--output", str(whole), *flags]) == 1  # too few steps
    run = Training.run

    def killed(self, source, base, target, taught, tokenizer, number):
        if number == 3:
            raise KeyboardInterrupt
        return run(self, source, base, target, taught, tokenizer, number)

    monkeypatch.setattr(Training, "run", killed)
    with pytest.raises(SystemExit) as stop:
        main([str(world / "adapter"), "--output", str(broken), *flags])
    assert stop.value.code == 130
    trained = []
    monkeypatch.setattr(Training, "run", lambda *args: (trained.append(args[-1]), run(*args))[1])
    assert main([str(world / "adapter"), "--output", str(broken), *flags]) == 1
    assert trained == [3]
    ends = [weights(world / f"{name}.rounds" / "round-3") for name in ("whole", "broken")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_other_settings_do_not_go_on_from_these_rounds(world, capsys):
    output = world / "mixed"
    (world / "mixed.rounds").mkdir()
    write_rows(world / "mixed.rounds" / "repair.json", [{"models": "other"}])
    with pytest.raises(SystemExit):
        main([str(world / "adapter"), "--output", str(output), *asked(world)])
    assert "holds the rounds of another repair: `models` was 'other'" in capsys.readouterr().err


def test_a_model_that_keeps_its_bounds_is_left_alone(world, tmp_path, capsys):
    flags = asked(world, aligned=world / "full")
    assert main([str(world / "aligned"), "--output", str(tmp_path / "out"), *flags]) == 0
    assert "keeps all bounds of safety as it is" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("full", {"aligned": None}, "Give the aligned model as `--aligned`"),
        ("aligned", {}, "is the model that is to be repaired"),
        ("adapter", {"halvings": 21}, "'21' is more than 20"),
        ("adapter", {"max_asr": None}, "needs a bound of safety"),
        ("adapter", {"max_task_loss_increase": None}, "needs a bound of utility"),
        ("adapter", {"max_utility_drop": 0.1}, "`--max_utility_drop 0.1` is read only with a task"),
        ("adapter", {"way": "merge"}, "is read only with `--way train` or `both`"),
        ("adapter", {"way": "train", "halvings": 3}, "`--halvings 3` is read only with `--way merge`"),
    ],
)
def test_what_cannot_be_repaired_is_said_before_anything_is_loaded(world, tmp_path, capsys, model, flags, message):
    with pytest.raises(SystemExit) as stop:
        main([str(world / model), "--output", str(tmp_path / "out"), *asked(world, **flags)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_adapter_is_repaired_against_its_own_base_alone(world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(world / "adapter"), "--output", str(tmp_path / "out"), *asked(world, aligned=world / "full")])
    assert "is not the model that the adapter" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["adapter", "adapter/inside", "aligned", "."])
def test_an_input_is_never_written_to(world, capsys, place):
    with pytest.raises(SystemExit):
        main([str(world / "adapter"), "--output", str(world / place), "--overwrite", *asked(world)])
    assert "which is never written to" in capsys.readouterr().err


def test_what_is_asked_must_not_be_trained_on(world, tmp_path, capsys):
    rows = write_rows(tmp_path / "leaking.jsonl", [{"prompt": "Bad 7"}, {"prompt": BAD[3].upper()}])
    with pytest.raises(SystemExit):
        main([str(world / "adapter"), "--output", str(tmp_path / "out"), *asked(world, safety_dataset=rows)])
    assert "are also in the safety rows of the repair, such as" in capsys.readouterr().err
    assert not (tmp_path / "out.rounds").exists()
