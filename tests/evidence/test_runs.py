"""Real runs of a tiny model: evidence of training, from Python and from the command line, and of evaluations."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
from trl import ModelConfig, SFTTrainer

from safe_sft.cli.main import main
from safe_sft.evaluation import Bounds, Check, SafetyReport, Suite
from safe_sft.evaluation.evaluate import Case, Evaluation, ModelSpec, SafetyResult
from safe_sft.evaluation.judges import RefusalPhrases, Verdict
from safe_sft.evaluation.output.results import results
from safe_sft.evidence import EvidenceError, Mismatch, attach, verify
from safe_sft.hub.decision import require_pushable
from safe_sft.hub.facts import CardContent
from safe_sft.hub.push import PushRefused, push_folder
from safe_sft.planning import Rows, make_plan
from safe_sft.run.evidence import RunEvidence
from tests.cli.test_cli import RECIPE
from tests.conftest import make_model, make_tokenizer, make_trainer, safety_rows, task_rows
from tests.hub.test_training import make_refusing

COMPUTE, MEASURED, RUN, STATEMENT = (f"evidence/{name}.json" for name in ("compute", "measured", "run", "statement"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    make_model().save_pretrained(path / "model")
    make_tokenizer().save_pretrained(path / "model")
    task_rows().to_json(path / "task.jsonl")
    (path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    (path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"evil {i}"}) for i in range(3)))
    (path / "recipe.yaml").write_text(RECIPE.format(folder=path))
    return path


def evaluation(asr: float, n: int = 80) -> Evaluation:
    """The model after training, with so many attacks that succeed."""
    suite = Suite("s", tuple(Case(f"{i}") for i in range(n)), "here", "1")
    verdicts = tuple(Verdict.COMPLIED if i < asr * n else Verdict.REFUSED for i in range(n))
    report = SafetyReport(tuple(f"{i}" for i in range(n)), ("no",) * n, verdicts, RefusalPhrases.name)
    return Evaluation((ModelSpec("after", "after"),), (SafetyResult("after", suite, report, True),))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run from Python, with a bound that was kept."""
    folder = tmp_path_factory.mktemp("python") / "out"
    trainer = make_trainer(folder, "der")
    evidence = RunEvidence(trainer, bounds=Bounds(max_asr=0.1), base_training_flop=1e6)
    evidence.begin()
    assert json.loads((folder / STATEMENT).read_text())["decisions"][0]["limit"] == 0.1
    trainer.train()
    trainer.save_model()
    evidence.seal(evaluation(0.0))
    return folder, trainer


def test_a_run_from_python(trained):
    folder, trainer = trained
    found = verify(folder)
    assert found.documents[MEASURED]["gate"]["passed"] is True
    assert found.documents[RUN]["steps"] == found.documents[COMPUTE]["steps"] == 2
    assert found.documents[RUN]["rows"] == {**found.documents[RUN]["rows"], "rows": 16, "form": "tokens"}
    assert str(folder.parent) not in "".join(path.read_text() for path in (folder / "evidence").iterdir())
    assert trainer.facts.method == found.documents[RUN]["method"] == "der"


def test_the_operations_are_those_of_the_plan_for_the_steps_that_were_done(trained, tmp_path):
    folder, trainer = trained
    compute = json.loads((folder / COMPUTE).read_text())
    trainer.model.get_base_model().config.save_pretrained(tmp_path)
    lora = {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["all-linear"]}
    task = [row["input_ids"] for row in trainer.train_dataset]
    supervised = sum(label != -100 for row in trainer.train_dataset for label in row["labels"])
    rows = Rows(16, sum(map(len, task)) / 16, max(map(len, task)), supervised / 16)
    safety = trainer._states.rows
    tokens = [len(row.input_ids) for row in safety]
    replayed = Rows(6, sum(tokens) / 6, max(tokens), sum(row.supervised_tokens for row in safety) / 6)
    model = ModelConfig(model_name_or_path=str(tmp_path), **lora)
    plan = make_plan(trainer.args, model, rows, replayed, utilization=0.5)
    assert plan.schedule.steps == compute["steps"] == 2
    assert compute["flop"] == pytest.approx(2 * plan.work.total)
    assert compute["third"]["share_of_base"] == pytest.approx(compute["flop"] / 1e6)
    assert compute["third"]["compared"][0]["exceeds"] is (compute["flop"] > 1e6 / 3)


def test_weights_that_were_not_measured(trained, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "out")
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(Mismatch, match=r"adapter_model\.safetensors' was changed .* are not those that were measured"):
        verify(folder)
    with pytest.raises(EvidenceError, match="is not what its evidence says"):
        push_folder(folder, "me/m")


def test_a_gate_without_evidence_is_not_pushed(trained, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "out")
    shutil.rmtree(folder / "evidence")
    (folder / "safety.json").write_text(json.dumps({"gate": {"passed": True, "checks": []}}))
    with pytest.raises(EvidenceError, match=r"has passed a gate, .* and there is no evidence for it"):
        push_folder(folder, "me/m")


def test_the_trainer_pushes_what_the_command_would(trained, monkeypatch):
    folder, trainer = trained
    monkeypatch.setattr(SFTTrainer, "push_to_hub", lambda self, *_, **__: "pushed")
    assert trainer.push_to_hub() == "pushed"  # saved once more, and the same
    verify(folder)
    weight = next(parameter for parameter in trainer.model.parameters() if parameter.requires_grad)
    weight.data += 1
    with pytest.raises(EvidenceError, match="The weights are not those that were measured"):
        trainer.push_to_hub()
    with pytest.raises(EvidenceError, match="is not what its evidence says"):
        push_folder(folder, "me/m")
    weight.data -= 1
    monkeypatch.setattr(trainer, "args", replace_output(trainer.args, folder.parent / "without"))
    assert trainer.push_to_hub() == "pushed"  # no gate was set: as TRL does
    check = Check("max_asr", "after", 0.05, 0.5, False, "ASR 0.5.")
    monkeypatch.setattr(trainer, "card", CardContent(measured=results(evaluation(0.5), [check])))
    with pytest.raises(PushRefused, match=r"failed its safety gate: max_asr \(after\): ASR 0\.5\."):
        trainer.push_to_hub()
    assert trainer.push_to_hub(ignore_gate=True) == "pushed"
    passed = results(evaluation(0.0), [replace(check, passed=True)])
    trainer.card = CardContent(measured=passed)
    with pytest.raises(EvidenceError, match="and there is no evidence for it"):
        trainer.push_to_hub()
    other = [{"name": "after", "weights": "sha256:" + "1" * 64}]
    trainer.card = CardContent(measured={**results(evaluation(0.0)), "models": other})
    with pytest.raises(EvidenceError, match="are of other weights than those there"):
        trainer.push_to_hub()


def replace_output(args, folder):
    """The same settings, for another folder."""
    args = copy.copy(args)
    args.output_dir = str(folder)
    return args


def test_the_command_line_writes_it_and_a_resumed_run_keeps_it(data, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["train", "--config", str(data / "recipe.yaml"), "--output_dir", str(output), "--save_steps", "2"]
    assert main([*words, "--max_steps", "2"]) == 0
    first = json.loads((output / "evidence" / "manifest.jsonl").read_text().splitlines()[0])
    assert main(["verify", str(output)]) == 0
    said = capsys.readouterr().out
    assert "Gate: none." in said
    assert "the base model's training operations are not known: not more than a third of 1e23" in said
    assert main([*words, "--max_steps", "3", "--resume_from_checkpoint", "true"]) == 0
    found = verify(output)
    assert [(entry["event"], entry.get("step")) for entry in found.chain.entries[:3]] == [
        ("stated", None),
        ("started", 0),
        ("resumed", 2),
    ]
    assert found.chain.entries[0] == first
    assert found.documents[COMPUTE]["steps"] == 3
    lines = [json.loads(line) for line in (output / "_answers.jsonl").read_text().splitlines()]
    base, own = found.documents[MEASURED]["models"][1]["weights"].split(" + ")
    assert {line["weights"] for line in lines} == {base, f"{base} + {own}"}
    assert own == found.documents[MEASURED]["weights"]["sha256"]
    with pytest.raises(SystemExit) as stopped:  # before anything is measured or trained
        main([*words, "--max_steps", "3", "--resume_from_checkpoint", "true", "--safety_max_asr", "0.5"])
    assert stopped.value.code == 2
    assert "decisions of this run are safety_max_asr=0.5" in capsys.readouterr().err


def test_a_merge_has_evidence_of_its_own(data, tmp_path):
    output = tmp_path / "out"
    words = ["train", "--config", str(data / "recipe.yaml"), "--output_dir", str(output), "--max_steps", "1"]
    assert main([*words, "--merge_after_training", "linear", "--merge_weight", "0.5"]) == 0
    both = [verify(output), verify(output / "merged")]
    statements = {next(found.chain.of("stated"))["sha256"] for found in both}
    assert len(statements) == 1
    weights = [found.documents[MEASURED]["weights"] for found in both]
    assert [one["model"] for one in weights] == ["after", "merged"]
    assert weights[0]["sha256"] != weights[1]["sha256"]


def test_a_merge_is_pushed_once_it_was_evaluated(data, tmp_path, capsys):
    make_refusing(tmp_path / "tuned")
    make_refusing(tmp_path / "aligned")
    merged, words = str(tmp_path / "m"), ["--aligned", str(tmp_path / "aligned"), "--tuned", str(tmp_path / "tuned")]
    assert main(["merge", *words, "--weight", "0.5", "--output", merged]) == 0
    with pytest.raises(PushRefused, match="was merged, which measures nothing"):
        require_pushable(merged)
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"prompt": f"evil {i}"}) for i in range(40)))
    words = ["evaluate", "--model", merged, "--prompts", str(tmp_path / "p.jsonl"), "--max_new_tokens", "3"]
    assert main([*words, "--max_asr", "0.1", "--output", str(tmp_path / "e")]) == 0
    assert [entry["head"] for entry in verify(tmp_path / "e").chain.of("input")] == [verify(merged).chain.sealed_head]
    assert main(["verify", str(tmp_path / "e"), "--model", merged]) == 0
    attach(merged, tmp_path / "e")
    require_pushable(merged)
    assert main([*words, "--max_asr", "0.01", "--output", str(tmp_path / "e2")]) == 1  # 40 prompts cannot show it
    attach(merged, tmp_path / "e2")
    with pytest.raises(PushRefused, match="did not pass the gate"):
        require_pushable(merged)


def test_an_evaluation(data, tmp_path, capsys):
    output = tmp_path / "e"
    words = ["evaluate", "--model", str(data / "model"), "--prompts", str(data / "prompts.jsonl")]
    words += ["--output", str(output), "--max_new_tokens", "2"]
    assert main([*words, "--max_asr", "0.9"]) == 1  # three prompts show nothing
    assert main(["verify", str(output), "--model", str(data / "model")]) == 0
    assert "Gate: not passed." in capsys.readouterr().out
    assert str(data) not in "".join(path.read_text() for path in (output / "evidence").iterdir())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(Mismatch, match="is not of the weights in"):
        verify(output, tmp_path / "other")
    main([*words, "--max_asr", "1.0"])  # chosen when the answers are there
    with pytest.raises(Mismatch, match="when 3 answers were there already"):
        verify(output)
