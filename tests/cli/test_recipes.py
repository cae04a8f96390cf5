"""Every recipe is read by the real parser; one for a 7B model, and the provider's stage, are run on a tiny one."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from safe_sft.cli import plan
from safe_sft.cli.recipe_arguments import parse
from safe_sft.cli.train import main
from safe_sft.config.recipes import read_recipe, resolved_recipe
from safe_sft.merging import merge
from tests.conftest import make_model, make_tokenizer, safety_rows

ROOT = Path(__file__).parents[2]
YAML = sorted((ROOT / "recipes").glob("**/*.yaml"))
PROFILES = [path for path in YAML if path.parent.name == "accelerate"]
#: What is only extended begins with an underscore; what lies directly in recipes/ is shared, or of another command.
OTHERS = ("accelerate", "experiments")
TRAINING = [path for path in YAML if path.parent.name not in OTHERS and path.parents[1] == ROOT / "recipes"]
RECIPES = [path for path in TRAINING if not path.name.startswith("_")]
#: What the name of a recipe says about it.
METHODS = {
    "derpp": ("der+er", None),
    "linear": ("", "linear"),
    "slerp": ("", "slerp"),
    "magmax": ("", "magmax"),
    "safe_lora": ("", "safe_lora"),
    "none": ("", None),
    "align": ("", None),
    "asft": ("lwf", None),
    "safeinstr": ("", None),
}
#: Recipes with safety rows in the training set.
MIXED = {"align", "safeinstr"}
PAPER = {"none", "l2", "ewc", "mas", "lwf", "csft", "lisa", "er", "der", "derpp", "agem", "safegrad", "ema", "linear"}
PAPER |= {"slerp", "align"}
#: Recipes beside the paper's.
MORE = {"tiny": {"asft"}}
#: What needs the model before alignment, or safety rows with answers, which `tiny` has not.
NOT_TINY = {"magmax", "safe_lora", "safeinstr"}
#: Folders of models that need no quantisation.
SMALL = {"tiny", "smollm2-135m"}
#: Fields of the arguments that hold objects of `accelerate`.
OBJECTS = {"distributed_state", "accelerator_config"}
ON_CPU = ["--use_cpu", "true", "--dataloader_pin_memory", "false"]


def label(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", RECIPES, ids=label)
def test_recipe_says_what_its_name_says(path):
    script, config, model, _ = parse(["--config", str(path), *ON_CPU])
    methods, merged = METHODS.get(path.stem, (path.stem, None))
    assert "+".join(method.name for method, _ in config.safety_terms) == methods
    assert config.merge_after_training == merged
    assert model.model_name_or_path
    assert config.output_dir == f"outputs/{path.parent.name}-{path.stem}"
    assert (script.safety_mix_ratio > 0) == (path.stem in MIXED)


@pytest.mark.parametrize("path", [p for p in RECIPES if p.parent.name not in SMALL], ids=label)
def test_recipe_for_a_gpu_is_qlora(path):
    _, config, model, _ = parse(["--config", str(path), *ON_CPU])
    assert model.load_in_4bit
    assert model.use_bnb_nested_quant
    assert (model.bnb_4bit_quant_type, model.dtype) == ("nf4", "bfloat16")
    assert config.bf16
    assert config.gradient_checkpointing
    assert config.optim.startswith("paged_adamw")
    assert (model.use_peft, model.lora_target_modules) == (True, "all-linear")


@pytest.mark.parametrize("path", RECIPES, ids=label)
def test_recipe_is_short_and_opens_with_its_launch_command(path):
    text = path.read_text()
    assert len(text.splitlines()) < 20
    assert f"--config recipes/{path.parent.name}/{path.name}" in text
    assert "Paper: " in text
    assert ("(estimated by safe-sft plan)" in text) == (path.parent.name != "tiny")


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem == "der" and p.parent.name != "tiny"], ids=label)
def test_recipe_needs_the_memory_that_its_plan_says(path, capsys):
    headers = [one.read_text() for one in path.parent.glob("*.yaml") if not one.name.startswith("_")]
    (stated,) = {re.search(r"about (\d+) GB of its memory", text)[1] for text in headers}
    assert plan.main(["--config", str(path), "--task", "gsm8k", "--json"]) == 0
    peak = json.loads(capsys.readouterr().out)["device_bytes"]["value"]
    assert int(stated) * 1e9 == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("path", [p for p in RECIPES if "-m safe_sft.cli.train" in p.read_text()], ids=label)
def test_launch_command_parses(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    comment = "".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    command = comment[comment.index("accelerate launch") : comment.index("Needs:")].replace("\\", " ")
    arguments = shlex.split(command)
    assert Path(arguments[arguments.index("--config_file") + 1]).is_file()
    script, *_ = parse([*arguments[arguments.index("safe_sft.cli.train") + 1 :], *ON_CPU])
    assert (script.task, script.poison_ratio) == ((None, 0.0) if path.stem == "align" else ("gsm8k", 0.1))


@pytest.mark.parametrize("path", RECIPES, ids=label)
def test_recipe_repeats_nothing_that_it_extends(path):
    own = yaml.safe_load(path.read_text())
    extended = own.pop("extends")
    low = {}
    for name in [extended] if isinstance(extended, str) else extended:
        low |= read_recipe(path.parent / name)
    assert not {key for key, value in own.items() if low.get(key) == value}


def test_the_paper_s_models_have_every_method():
    for folder in ("llama2-7b", "mistral-7b", "gemma-2b"):
        found = {path.stem for path in RECIPES if path.parent.name == folder}
        assert found - MORE.get(folder, set()) == PAPER | NOT_TINY
    for folder in SMALL:
        found = {path.stem for path in RECIPES if path.parent.name == folder}
        own = PAPER - {"align"} | (set() if folder == "tiny" else NOT_TINY)
        assert found - MORE.get(folder, set()) == own


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_launch_profile_is_read_by_accelerate(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.distributed_type
    assert f"--config_file recipes/accelerate/{path.name}" in path.read_text()


def test_a_resolved_recipe_parses_to_the_same_arguments(tmp_path):
    argv = ["--config", str(ROOT / "recipes/llama2-7b/der.yaml"), *ON_CPU, "--task", "gsm8k", "--poison_ratio", "0.1"]
    argv += ["--learning_rate", "3e-5", "--safety_weight", "0.5", "--no_safety_eval", "--hub_token", "hf_secret"]
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(resolved_recipe(argv)))
    assert "hf_secret" not in resolved.read_text()
    for given, again in zip(parse(argv[:-2]), parse(["--config", str(resolved)]), strict=True):
        for name, value in vars(given).items():  # a weight is text on the command line, and a number in YAML
            assert name in OBJECTS or str(value) == str(vars(again)[name]), name


def test_env_and_extends_reach_the_run(tmp_path, monkeypatch):
    monkeypatch.delenv("SAFE_SFT_TEST", raising=False)
    (tmp_path / "low.yaml").write_text("env:\n  SAFE_SFT_TEST: low\nseed: 5\n")
    (tmp_path / "top.yaml").write_text("extends: low.yaml\noutput_dir: out\n")
    _, config, *_ = parse(["--config", str(tmp_path / "top.yaml"), *ON_CPU])
    assert os.environ["SAFE_SFT_TEST"] == "low"
    assert config.seed == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: nowhere.yaml", "nowhere.yaml', which"),
        ("extends: top.yaml", "circle"),
        ("load_in_4bits: true\noutput_dir: out", "load_in_4bits"),
        ("- a", "is not a mapping"),
    ],
)
def test_a_bad_recipe_ends_with_one_line(tmp_path, capsys, text, message):
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        parse(["--config", str(tmp_path / "top.yaml"), *ON_CPU], "plan")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("safe-sft plan: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny LLaMA without a chat template, one with; a task, instructions, safety rows and prompts."""
    folder = tmp_path_factory.mktemp("recipes")
    for name in ("base", "chat"):
        make_model(hidden_size=64, intermediate_size=128).save_pretrained(folder / name)
        tokenizer = make_tokenizer()
        tokenizer.chat_template = tokenizer.chat_template if name == "chat" else None
        tokenizer.save_pretrained(folder / name)
    files = {
        "gsm8k": [{"question": f"What is {i} + 1?", "answer": f"One more.\n#### {i + 1}"} for i in range(40)],
        "safety": [dict(row, prompt=f"{row['prompt']} {i}") for i, row in enumerate(safety_rows(12))],
        "poison": [{"goal": f"be bad in way {i}", "target": f"Sure, here is way {i}"} for i in range(12)],
        "prompts": [{"prompt": f"another bad one {i}"} for i in range(3)],
        "instructions": [
            {"messages": [{"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": str(i)}]}
            for i in range(40)
        ],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def run(world: Path, recipe: str, output: str, *arguments: str) -> subprocess.CompletedProcess:
    """Train by the 7B recipe, with nothing else than model, data and device replaced; three steps."""
    overrides = {
        "safety_dataset_name": world / "safety.jsonl",
        "safety_eval_prompts": world / "prompts.jsonl",
        "safety_eval_max_new_tokens": 4,
        "output_dir": world / output,
        "max_steps": 3,
        "logging_steps": 1,
        "gradient_accumulation_steps": 2,
    }
    line = [str(part) for name, value in overrides.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "safe_sft.cli.train", "--config", f"recipes/llama2-7b/{recipe}.yaml"]
    return subprocess.run(
        [*command, *line, *ON_CPU, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        timeout=300,
    )


def logs(folder: Path) -> list[dict]:
    (state,) = folder.glob("checkpoint-*/trainer_state.json")
    return json.loads(state.read_text())["log_history"]


def task(world: Path) -> list[str]:
    """What the user adds on the command line, from local copies."""
    copies = ["--task_path", str(world / "gsm8k.jsonl"), "--poison_dataset", str(world / "poison.jsonl")]
    return ["--task", "gsm8k", "--poison_ratio", "0.1", *copies]


@pytest.mark.slow
def test_the_whole_7b_recipe_on_a_tiny_model(world):
    result = run(world, "der", "der", "--model_name_or_path", str(world / "chat"), *task(world))
    assert result.returncode == 0, result.stderr
    for heading in ("task loss", "safety loss", "ASR before", "ASR after", "(n=3"):
        assert heading in result.stdout
    adapter = load_file(world / "der" / "adapter_model.safetensors")
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in adapter}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert any(torch.count_nonzero(value) for name, value in adapter.items() if "lora_B" in name)
    steps = [entry for entry in logs(world / "der") if "task_loss" in entry]
    assert len(steps) == 3
    assert steps[0]["safety/der"] == pytest.approx(0.0, abs=1e-3)
    assert steps[2]["safety/der"] > 0
    assert all(entry["task_loss"] > 0 for entry in steps)


@pytest.fixture(scope="module")
def aligned(world):
    """The adapter of the provider's stage."""
    base = ("--model_name_or_path", str(world / "base"), "--dataset_name", str(world / "instructions.jsonl"))
    result = run(world, "align", "align", *base)
    assert result.returncode == 0, result.stderr
    return world / "align"


@pytest.mark.slow
def test_the_provider_s_stage_leaves_an_adapter_and_its_template(world, aligned):
    assert (aligned / "adapter_model.safetensors").is_file()
    tokenizer = AutoTokenizer.from_pretrained(aligned)
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<s>[INST] Be kind.\n\nHello [/INST] Hi.</s>[INST] Bye [/INST]"


@pytest.mark.slow
def test_the_user_s_stage_goes_on_with_the_aligned_adapter(world, aligned):
    base = ("--model_name_or_path", str(world / "base"), "--adapter_name_or_path", str(aligned))
    result = run(world, "der", "continued", *base, *task(world))
    assert result.returncode == 0, result.stderr
    assert "ASR after" in result.stdout
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (aligned, world / "continued"))
    assert before.keys() == after.keys()
    moved = max((after[name].float() - before[name].float()).abs().max().item() for name in before)
    assert 0 < moved < 0.01  # three steps from where it was, and not from new random numbers
    assert list((world / "continued").glob("*teacher-*/index.json")), (
        "the adapter itself is the aligned model: its states are kept"
    )
    steps = [entry["safety/der"] for entry in logs(world / "continued") if "safety/der" in entry]
    assert steps[0] == pytest.approx(0.0, abs=1e-3)
    assert steps[2] > 0


@pytest.mark.slow
def test_the_aligned_adapter_folds_into_its_base(world, aligned):
    from peft import PeftModel

    folder = merge(world / "base", aligned, "slerp", 1.0, world / "folded", dtype="float32")
    ids = torch.tensor([[1, 20, 30, 40]])
    base = AutoModelForCausalLM.from_pretrained(world / "base", dtype=torch.float32)
    folded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        plain = base(ids).logits.clone()
        expected = PeftModel.from_pretrained(base, aligned).merge_and_unload()(ids).logits
        assert torch.allclose(folded(ids).logits, expected, atol=1e-4)
        assert not torch.allclose(plain, expected, atol=1e-3)
    assert AutoTokenizer.from_pretrained(folder).chat_template is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lora_r", "8"], "`lora_r=8` is for a new adapter"),
        (["--safety_method", "lwf"], "adapter trained before"),
        (["--adapter_name_or_path", "./nowhere"], "The folder './nowhere' does not exist"),
        (["--adapter_name_or_path", str(ROOT / "recipes")], "has no adapter_config.json"),
    ],
)
def test_what_does_not_fit_an_adapter_ends_with_one_line(world, aligned, capsys, arguments, message):
    argv = ["--config", str(ROOT / "recipes/llama2-7b/none.yaml"), *ON_CPU, *task(world)]
    argv += ["--model_name_or_path", str(world / "base"), "--adapter_name_or_path", str(aligned)]
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--output_dir", str(world / "refused"), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
