"""Models, adapters and tokenizers are loaded whole, or refused in one line that says value, reason and remedy."""

import ast
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

import safe_sft
from safe_sft import SafeSFTTrainer
from safe_sft.models.adapters import adapter_from
from safe_sft.models.loading import load_adapter, load_base, load_config, load_model, load_tokenizer
from tests.conftest import lora, make_config, make_model, make_tokenizer, safety_rows, task_rows

WEIGHTS, ADAPTER_WEIGHTS = "model.safetensors", "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A base with its tokenizer, and an adapter on it."""
    make_model().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    adapted = get_peft_model(make_model(), lora(modules_to_save=["lm_head"]))
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path


def rewritten(file: Path, change) -> None:
    """Replace the tensors of `file` by those that `change` makes of them."""
    save_file({key: t.contiguous() for key, t in change(load_file(file)).items()}, file, metadata={"format": "pt"})


def edited(file: Path, **values) -> None:
    """Set values of a JSON file; None deletes."""
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def other_prefix(tensors):
    return {key.replace("model.layers", "model.language_model.layers"): t for key, t in tensors.items()}


def half(tensors):
    return {key: t for key, t in tensors.items() if "layers.1" not in key}


ADAPTER_CHANGES = {
    "other prefix": other_prefix,
    "half": half,
    "none": lambda tensors: {"x": torch.zeros(1)},
    "no B": lambda tensors: {key: t for key, t in tensors.items() if "lora_B" not in key},
    "one layer more": lambda t: {
        **t,
        **{k.replace("layers.1", "layers.7"): v + 0 for k, v in t.items() if "rs.1" in k},
    },
    "other rank": lambda tensors: {k: t[:2] if "lora_A" in k else t for k, t in tensors.items()},
    "no full module": lambda tensors: {key: t for key, t in tensors.items() if "lm_head" not in key},
}


@pytest.mark.parametrize("change", ADAPTER_CHANGES.values(), ids=ADAPTER_CHANGES)
def test_an_adapter_that_does_not_fit_is_refused_wherever_one_is_loaded(folder, change):
    base, adapter = str(folder / "base"), str(folder / "adapter")
    running = load_adapter(make_model(), adapter)
    rewritten(folder / "adapter" / ADAPTER_WEIGHTS, change)
    for load in (
        lambda: load_model(base, adapter),
        lambda: load_model(adapter),
        lambda: load_adapter(make_model(), adapter, is_trainable=True),
        lambda: adapter_from(running, adapter).__enter__(),
    ):
        with pytest.raises(ValueError, match=r"adapter '.*' (does not fit this base|cannot be loaded)") as error:
            load()
        assert adapter in str(error.value)
        assert "\n" not in str(error.value)
    assert list(running.peft_config) == ["default"]


def test_an_adapter_that_fits_is_loaded_with_all_of_its_values(folder):
    rewritten(folder / "adapter" / ADAPTER_WEIGHTS, lambda t: {k: torch.randn_like(v) for k, v in t.items()})
    for model, _ in (load_model(str(folder / "base"), str(folder / "adapter")), load_model(str(folder / "adapter"))):
        own = {k.replace(".default", "").replace("modules_to_save.", ""): v for k, v in model.state_dict().items()}
        for key, tensor in load_file(folder / "adapter" / ADAPTER_WEIGHTS).items():
            torch.testing.assert_close(own[key], tensor, rtol=0, atol=0)


def garbage(text):
    return lambda path: path.write_bytes(text)


BASE_DAMAGE = {
    "a layer is missing": (WEIGHTS, lambda path: rewritten(path, half), "missing"),
    "no head": (WEIGHTS, lambda p: rewritten(p, lambda t: {k: v for k, v in t.items() if "lm" not in k}), "lm_head"),
    "more layers": ("config.json", lambda path: edited(path, num_hidden_layers=3), "layers.2"),
    "fewer layers": ("config.json", lambda path: edited(path, num_hidden_layers=1), "layers.1"),
    "other width": ("config.json", lambda path: edited(path, intermediate_size=40), "48"),
    "smaller vocabulary": ("config.json", lambda path: edited(path, vocab_size=100), "100"),
    "biases left over": (
        WEIGHTS,
        lambda p: rewritten(p, lambda t: {**t, "model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
        "q_proj.bias",
    ),
    "truncated": (WEIGHTS, lambda path: path.write_bytes(path.read_bytes()[:-100]), "base"),
    "short header": (WEIGHTS, lambda path: path.write_bytes(path.read_bytes()[:20]), "base"),
    "garbage": (WEIGHTS, garbage(b"\x00\xff" * 99), "base"),
    "empty": (WEIGHTS, garbage(b""), "base"),
    "no weights": (WEIGHTS, Path.unlink, "base"),
    "pickle that is none": (WEIGHTS, lambda p: p.rename(p.with_name("pytorch_model.bin")), "base"),
    "no config": ("config.json", Path.unlink, "config.json"),
    "config of garbage": ("config.json", garbage(b"\xff\xfe{"), "base"),
    "config is a list": ("config.json", garbage(b"[1, 2]"), "base"),
    "config without a type": ("config.json", lambda p: edited(p, model_type=None), "base"),
    "unknown type": ("config.json", lambda path: edited(path, model_type="nothing"), "nothing"),
    "heads that do not divide": ("config.json", lambda path: edited(path, num_attention_heads=0), "base"),
    "words for numbers": ("config.json", lambda path: edited(path, hidden_size="many"), "base"),
    "index outside": (
        "model.safetensors.index.json",
        garbage(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}).encode()),
        "elsewhere",
    ),
    "absolute index": (
        "model.safetensors.index.json",
        garbage(b'{"weight_map": {"a": "/etc/passwd"}}'),
        "/etc/passwd",
    ),
    "index of garbage": ("model.safetensors.index.json", garbage(b"{"), "index"),
    "index without a map": ("model.safetensors.index.json", garbage(b"{}"), "weight_map"),
    "index of numbers": ("model.safetensors.index.json", garbage(b'{"weight_map": {"a": 1}}'), "1"),
    "shard missing": ("model.safetensors.index.json", garbage(b'{"weight_map": {"a": "m2.safetensors"}}'), "m2"),
}


def by_trainer(base):
    return SafeSFTTrainer(
        base, make_config(Path(base).parent / "out"), train_dataset=task_rows(), safety_dataset=safety_rows()
    )


@pytest.mark.parametrize(("file", "damage", "named"), BASE_DAMAGE.values(), ids=BASE_DAMAGE)
def test_a_base_that_is_not_whole_is_refused_in_one_line(folder, file, damage, named):
    damage(folder / "base" / file)
    with pytest.raises((ValueError, OSError)) as error:
        load_model(str(folder / "base"))
    text = str(error.value)
    assert "\n" not in text
    assert named in text
    assert str(folder / "base") in text
    assert any(remedy in text for remedy in ("anew", "Complete", "Use the model's", "Do not use"))


@pytest.mark.parametrize("damage", ["a layer is missing", "fewer layers", "other width", "truncated"])
def test_the_trainer_refuses_it_too(folder, damage):
    file, change, _ = BASE_DAMAGE[damage]
    change(folder / "base" / file)
    with pytest.raises(ValueError, match="anew"):
        by_trainer(str(folder / "base"))


def test_a_tied_head_and_old_buffers_are_neither_missing_nor_too_many(tmp_path):
    model = make_model(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    old = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "vision_tower.blocks.0.weight": torch.ones(4),
    }
    rewritten(tmp_path / WEIGHTS, lambda tensors: {**tensors, **old})
    assert torch.equal(load_base(str(tmp_path)).lm_head.weight, model.lm_head.weight)


def test_a_classifier_without_its_head_is_refused(folder):
    with pytest.raises(ValueError, match=r"score\.weight"):
        load_base(str(folder / "base"), auto=AutoModelForSequenceClassification)


def test_an_adapter_is_no_base(folder):
    with pytest.raises(ValueError, match="is an adapter"):
        load_base(str(folder / "adapter"))


ADAPTER_DAMAGE = {
    "unknown type": ("adapter_config.json", lambda path: edited(path, peft_type="NOTHING")),
    "no type": ("adapter_config.json", lambda path: edited(path, peft_type=None)),
    "garbage": ("adapter_config.json", garbage(b"{{")),
    "other targets": ("adapter_config.json", lambda path: edited(path, target_modules=["nothing"])),
    "other rank": ("adapter_config.json", lambda path: edited(path, r=2)),
    "truncated": (ADAPTER_WEIGHTS, lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "empty": (ADAPTER_WEIGHTS, garbage(b"")),
    "no weights": (ADAPTER_WEIGHTS, Path.unlink),
}


@pytest.mark.parametrize(("file", "damage"), ADAPTER_DAMAGE.values(), ids=ADAPTER_DAMAGE)
def test_a_damaged_adapter_is_refused_in_one_line(folder, file, damage):
    damage(folder / "adapter" / file)
    with pytest.raises((ValueError, OSError), match=r"The adapter .*anew") as error:
        load_model(str(folder / "base"), str(folder / "adapter"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", [b"{", b"", b"\xff\xff", b"[]"])
def test_a_damaged_tokenizer_is_refused_in_one_line(folder, file, text):
    (folder / "base" / file).write_bytes(text)
    with pytest.raises((ValueError, OSError), match="tokenizer") as error:
        load_model(str(folder / "base"))
    assert "\n" not in str(error.value)


def test_only_tokens_that_no_text_turns_into_may_lack_a_row(folder):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(folder / "base")
    load_model(str(folder / "base"))
    tokenizer.chat_template += "<image>"
    tokenizer.save_pretrained(folder / "base")
    with pytest.raises(ValueError, match=r"'<image>' with id 261.*261 rows"):
        load_model(str(folder / "base"))


@pytest.mark.parametrize("answer", ["", "y\n"])
def test_custom_code_is_neither_run_nor_asked_for(folder, monkeypatch, answer):
    code = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M", "AutoModelForSequenceClassification": "own.M"}
    edited(folder / "base" / "config.json", model_type="own", auto_map=code)
    edited(folder / "base" / "tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": ["own.T", None]})
    (folder / "base" / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    base = str(folder / "base")
    for load in (load_model, load_base, load_config, load_tokenizer):
        with pytest.raises(ValueError, match="code of its own"):
            load(base)
    shutil.rmtree(folder / "base" / "__pycache__", ignore_errors=True)
    assert not (folder / "ran").exists()


def test_no_call_leaves_it_open_whether_code_may_run():
    """Transformers asks on standard input wherever `trust_remote_code` is not given."""
    opened = []
    for path in Path(safe_sft.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = getattr(node.func.value, "id", "")
                if (
                    node.func.attr in ("from_pretrained", "from_config")
                    and owner.lower().startswith("auto")
                    and owner != "AutoHfQuantizer"
                ):
                    opened.append((path.name, "trust_remote_code" in {word.arg for word in node.keywords}))
    assert opened
    assert all(said for _, said in opened), opened
