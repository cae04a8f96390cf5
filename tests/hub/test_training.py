"""A run pushes its model with a card that says how safe it is, or refuses to."""

import json
import pickle

import pytest
import torch
from huggingface_hub import ModelCard

from safe_sft import SafeSFTConfig
from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.data import load_task
from safe_sft.evaluation import Check
from safe_sft.evidence import verify
from safe_sft.run.gate import PushRefused, push_strategy, require_enough, require_passed
from safe_sft.run.measure import Questions, evaluation_of, read_questions
from tests.cli.test_cli import RECIPE
from tests.conftest import make_model, make_tokenizer, safety_rows, task_rows

from .server import TOKEN, Trouble


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("push")
    make_model().save_pretrained(path / "model")
    make_tokenizer().save_pretrained(path / "model")
    task_rows().to_json(path / "task.jsonl")
    (path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    (path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"wicked {i}"}) for i in range(40)))
    recipe = RECIPE.format(folder=path) + "push_to_hub: true\nhub_model_id: me/safe\nhub_private_repo: true\n"
    (path / "recipe.yaml").write_text(recipe)
    return path


def test_train_pushes_the_model_and_its_card(hub, run_at, folder, tmp_path):
    output, recipe = tmp_path / "out", str(folder / "recipe.yaml")
    # One for the push of the checkpoint, which is not tried again; two for that of the end, which is.
    hub.troubles.append(Trouble("/commit/main", 500, times=3))
    done = run_at(
        "train", "--config", recipe, "--output_dir", str(output), "--teacher", "cached", "--hub_token", TOKEN
    )
    assert done.returncode == 0, done.stderr
    repo = hub.repos["me/safe"]
    assert repo.private is True
    assert len(repo.commits) == 1
    assert {"README.md", "safety.json", "adapter_model.safetensors", "tokenizer.json"} <= set(repo.files)
    assert not [name for name in repo.files if "teacher" in name or "optimizer" in name or "checkpoint" in name]
    assert any(output.glob("_teacher-*/index.json"))  # it stays here

    card = ModelCard(hub.text("me/safe"))
    measured = json.loads(repo.files["safety.json"])
    after = next(r for r in measured["safety"] if r["model"] == "after" and r["harmful"])
    results = {r.metric_type: r for r in card.data.eval_results}
    assert results["attack_success_rate"].metric_value == round(after["asr"]["value"], 4)
    assert results["attack_success_rate"].metric_args["n"] == 40
    assert results["over_refusal_rate"].dataset_name == "builtin-harmless"
    assert {"safe-sft", "trl", "sft", "der", "l2"} <= set(card.data.tags)
    low, high = after["asr"]["low"], after["asr"]["high"]
    assert f"{after['asr']['value']:.3f} [{low:.3f}, {high:.3f}] |" in card.text
    for line in (
        "| `der` | weight 0.5 |",
        "| `l2` | weight 0.05, over the space `weight` |",
        "safety.jsonl: 6 rows, digest `",
        "| replay share | 20.0 % of the rows of each step |",
        "| teacher | cached |",
        "arXiv:2512.10150",
        "safety_weight: 0.5+0.05",
        'model="me/safe"',
        "- TRL: ",
    ):
        assert line in card.text

    everything = b"".join([*repo.files.values(), *(f.read_bytes() for f in output.rglob("*") if f.is_file())])
    assert TOKEN.encode() not in everything

    verify(output)  # what the push saved once more is what was sealed
    for name, content in repo.files.items():
        (tmp_path / "downloaded" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "downloaded" / name).write_bytes(content)
    found = verify(tmp_path / "downloaded")
    assert found.absent == ("_answers.jsonl",)
    assert found.documents["evidence/measured.json"]["rates"][0]["n"] == 40
    assert str(folder).encode() not in b"".join(v for k, v in repo.files.items() if k.startswith("evidence/"))


def test_a_failed_gate_keeps_the_model_here(hub, run_here, folder, tmp_path):
    output = tmp_path / "out"
    gate = ("--push_requires_gate", "true", "--gate_max_asr", "0.1", "--save_steps", "1")
    done = run_here("train", "--config", str(folder / "recipe.yaml"), "--output_dir", str(output), *gate)
    assert done.returncode == 1
    assert "failed its safety gate and was not pushed. max_" in done.stderr
    assert f"safe-sft push {output} --repo me/safe --ignore_gate" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.repos["me/safe"].commits == []  # neither at the end nor at a checkpoint
    assert (output / "adapter_model.safetensors").is_file()
    assert "failed its safety gate" in (output / "README.md").read_text()
    assert json.loads((output / "safety.json").read_text())["gate"]["passed"] is False


def make_refusing(folder):
    """A model that answers everything with a refusal, which is one token of its tokenizer, and then ends."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens("I'm sorry, but I can't help with that.")
    model = make_model(vocab_size=len(tokenizer))
    refusal = len(tokenizer) - 1
    with torch.no_grad():
        for layer in model.model.layers:  # they add nothing to the embeddings
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()[:, 0] = 1.0
        model.model.embed_tokens.weight[refusal] = torch.eye(32)[1]
        model.lm_head.weight.zero_()[refusal, 0] = 4.0
        model.lm_head.weight[tokenizer.eos_token_id, 1] = 4.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_kept_gate_lets_the_model_go(hub, run_here, folder, tmp_path):
    output = tmp_path / "out"
    make_refusing(tmp_path / "safe")
    gate = ("--push_requires_gate", "true", "--gate_max_asr", "0.1", "--gate_max_asr_increase", "0.1")
    model = ("--model_name_or_path", str(tmp_path / "safe"), "--learning_rate", "1e-6", "--save_steps", "1")
    done = run_here("train", "--config", str(folder / "recipe.yaml"), "--output_dir", str(output), *model, *gate)
    assert done.returncode == 0, done.stderr
    repo = hub.repos["me/safe"]
    assert len(repo.commits) == 1  # after the gate, and not at checkpoints
    assert "adapter_model.safetensors" in repo.files
    measured = json.loads(repo.files["safety.json"])
    assert measured["gate"]["passed"] is True
    assert "failed its safety gate" not in hub.text("me/safe")


def test_a_push_that_fails_at_the_end_says_how_to_push_again(hub, run_here, folder, tmp_path):
    output = tmp_path / "out"
    hub.troubles.append(Trouble("/commit/main", 403, times=9))
    arguments = ("--output_dir", str(output), "--hub_strategy", "end", "--safety_eval", "false")
    done = run_here("train", "--config", str(folder / "recipe.yaml"), *arguments)
    assert done.returncode == 2
    assert f"Push it again with: safe-sft push {output} --repo me/safe --private" in done.stderr
    assert "Traceback" not in done.stderr
    hub.troubles.clear()
    assert run_here("push", str(output), "--repo", "me/safe", "--private").returncode == 0
    card = hub.text("me/safe")
    assert "The safety of these weights was not measured" in card
    assert "model-index" not in card


def test_a_wrong_token_is_found_before_training(hub, run_here, folder, tmp_path):
    done = run_here(
        "train",
        "--config",
        str(folder / "recipe.yaml"),
        "--output_dir",
        str(tmp_path / "o"),
        token="hf_" + "Wrong" * 7,
    )
    assert done.returncode == 2
    assert "The repository 'me/safe' cannot be created on the Hub: the Hub did not accept the token" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"push_requires_gate": True}, "has no bounds to check"),
        ({"gate_max_asr": 0.1}, "`gate_max_asr` has no effect"),
        ({"push_requires_gate": True, "gate_max_asr": 0.1, "safety_eval": False}, "needs measurements"),
        ({"push_requires_gate": True, "gate_max_asr": 1.5}, "`gate_max_asr=1.5` is no share"),
        ({"push_requires_gate": True, "gate_max_asr": "low"}, "`gate_max_asr='low'` is no share"),
    ],
)
def test_a_gate_that_cannot_decide_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        SafeScriptArguments(**fields)


def config(folder, **fields):
    return SafeSFTConfig(str(folder), bf16=False, report_to="none", push_to_hub=True, **fields)


def test_no_push_comes_before_the_gate(tmp_path):
    script = SafeScriptArguments(push_requires_gate=True, gate_max_asr=0.1)
    args = config(tmp_path)
    assert args.hub_strategy == "every_save"
    assert push_strategy(script, args) == "end"
    with pytest.raises(ValueError, match="`hub_strategy: checkpoint` pushes checkpoints during training"):
        push_strategy(script, config(tmp_path, hub_strategy="checkpoint"))
    args.push_to_hub = False
    with pytest.raises(ValueError, match="nothing is pushed"):
        push_strategy(script, args)


def test_a_bound_that_no_answers_could_keep_is_found_before_training(folder):
    prompts = str(folder / "prompts.jsonl")
    few = SafeScriptArguments(push_requires_gate=True, gate_max_asr=0.05, safety_eval_prompts=prompts)
    with pytest.raises(ValueError, match=r"40 rows of the suite 'prompts': at least 73 are needed"):
        require_enough(few, read_questions(few, {}))
    utility = SafeScriptArguments(push_requires_gate=True, gate_max_utility_drop=0.5)
    with pytest.raises(ValueError, match=r"`task=None` is none\. Choose from: gsm8k, sst2"):
        read_questions(utility, {})


def test_a_token_is_not_pickled_with_the_arguments(tmp_path):
    args = config(tmp_path, hub_token=TOKEN)
    assert TOKEN.encode() not in pickle.dumps(args)
    assert args.hub_token == TOKEN


def test_the_task_is_measured_on_its_test_split(tmp_path):
    rows = [{"question": f"{i} + 1?", "answer": f"So #### {i + 1}"} for i in range(3)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    script = SafeScriptArguments(task="gsm8k", task_path=str(tmp_path))
    questions = read_questions(script, load_task("gsm8k", str(tmp_path)))
    assert [(suite.name, suite.harmful) for suite in questions.suites] == [
        ("builtin-harmful", True),
        ("builtin-harmless", False),
    ]
    (task,) = questions.tasks
    assert task.cases[0].prompt.startswith("0 + 1?")
    assert task.judge(["#### 1", "It is 2.", "4"]) == [True, True, False]
    answers = Questions(tasks=(task,)).ask(make_model(), make_tokenizer(), config(tmp_path, use_cpu=True), "after")
    assert answers.logs() == {"gsm8k_after": 0.0}
    assert evaluation_of([answers], config(tmp_path)).utility[0].rate.n == 3
    assert read_questions(SafeScriptArguments(safety_eval=False), {}) == Questions()


def test_a_gate_that_was_kept_lets_through():
    kept = Check("max_asr", "after", 0.05, 0.01, True, "ASR 0.")
    require_passed([kept], "out", "me/x")
    lost = Check("max_asr_increase", "after", 0.05, 0.5, False, "It rose.")
    with pytest.raises(PushRefused, match=r"max_asr_increase \(after\): It rose\. It is saved in 'out'"):
        require_passed([kept, lost], "out", "me/x")
