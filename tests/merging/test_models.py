"""Full models: streamed, sharded, tied, resized, or refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GemmaConfig, GemmaForCausalLM, set_seed

import safe_sft.merging.formulas
from safe_sft.merging import merge
from safe_sft.merging.functions import INTERPOLATIONS, merged
from tests.conftest import make_model, make_tokenizer
from tests.merging.helpers import logits, saved, saved_adapter, tensors


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_every_tensor_is_merged(tmp_path, method):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1)
    output = merge(aligned, tuned, method, 0.3, tmp_path / "m")
    a, t, m = (tensors(tmp_path / name) for name in "atm")
    assert m.keys() == t.keys()
    for name in m:
        assert torch.equal(m[name], merged(a[name], t[name], method, 0.3))
    model = AutoModelForCausalLM.from_pretrained(output)
    assert torch.isfinite(logits(model)).all()


@pytest.mark.parametrize(("weight", "side"), [(0, "a"), (1, "t")])
def test_ends_are_the_files_bit_for_bit(tmp_path, weight, side):
    aligned = saved(tmp_path / "a", dtype=torch.bfloat16)
    tuned = saved(tmp_path / "t", seed=1, dtype=torch.bfloat16)
    for method in INTERPOLATIONS:
        merge(aligned, tuned, method, weight, tmp_path / method)
        m, expected = tensors(tmp_path / method), tensors(tmp_path / side)
        assert all(torch.equal(m[name], expected[name]) for name in expected)


def test_tokenizer_template_card_and_record(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1, tokenizer=False)
    output = merge(aligned, tuned, "slerp", {"*mlp*": 0.2, "default": 0.8}, tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer.chat_template == make_tokenizer().chat_template
    record = json.loads((output / "merge_config.json").read_text())
    assert record["weight"] == {"*mlp*": 0.2, "default": 0.8}
    assert (record["aligned"], record["tuned"], record["method"]) == (aligned, tuned, "slerp")
    card = (output / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "- method: `slerp`" in card
    assert "base_model" not in card  # local folders are no models of the Hub
    assert (output / "generation_config.json").is_file()


@pytest.mark.parametrize(("a_size", "t_size"), [("20KB", "5GB"), ("5GB", "20KB"), ("20KB", "35KB")])
def test_differing_shard_layouts(tmp_path, a_size, t_size):
    aligned = saved(tmp_path / "a", max_shard_size=a_size)
    tuned = saved(tmp_path / "t", seed=1, max_shard_size=t_size)
    output = merge(aligned, tuned, "linear", 0.5, tmp_path / "m", max_shard_size="30KB")
    index = json.loads((output / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert len(files) > 3
    for file in files:
        held = load_file(output / file)
        size = sum(t.nbytes for t in held.values())
        assert size <= 30_000 or len(held) == 1
    a, t, m = (tensors(tmp_path / name) for name in "atm")
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in m.values())
    assert all(torch.equal(m[name], torch.lerp(a[name], t[name], 0.5)) for name in t)
    AutoModelForCausalLM.from_pretrained(output)


def test_mixed_dtypes_are_aligned_in_the_file(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1, dtype=torch.bfloat16)
    content = load_file(tmp_path / "t" / "model.safetensors")
    content["model.norm.weight"] = content["model.norm.weight"].float()
    save_file(content, tmp_path / "t" / "model.safetensors", metadata={"format": "pt"})
    output = merge(aligned, tuned, "linear", 0.5, tmp_path / "m")
    m = tensors(output)
    assert {name: x.dtype for name, x in m.items()} == {name: x.dtype for name, x in content.items()}
    with safe_open(output / "model.safetensors", framework="pt") as handle:
        assert next(iter(handle.offset_keys())) == "model.norm.weight"
        assert handle.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_requested_dtype(tmp_path, dtype):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1, dtype=torch.bfloat16)
    output = merge(aligned, tuned, "slerp", 0.5, tmp_path / "m", dtype=dtype)
    wanted = getattr(torch, dtype)
    a, t, m = (tensors(tmp_path / name) for name in "atm")
    for name in m:
        assert torch.equal(m[name], merged(a[name], t[name], "slerp", 0.5, wanted))
    assert AutoModelForCausalLM.from_pretrained(output).dtype == wanted


def test_integer_buffers_are_copied(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1)
    for name, value in (("a", 1), ("t", 9)):
        content = tensors(tmp_path / name)
        content["model.steps"] = torch.tensor([value])
        save_file(content, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    output = merge(aligned, tuned, "linear", 0.5, tmp_path / "m", dtype="float16")
    assert torch.equal(tensors(output)["model.steps"], torch.tensor([9]))


def test_tied_weights_stay_tied(tmp_path):
    aligned = saved(tmp_path / "a", tie_word_embeddings=True)
    tuned = saved(tmp_path / "t", seed=1, tie_word_embeddings=True)
    output = merge(aligned, tuned, "linear", 0.5, tmp_path / "m")
    assert "lm_head.weight" not in tensors(output)
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_head_untied_by_tuning_is_merged_with_the_shared_one(tmp_path):
    aligned = saved(tmp_path / "a", tie_word_embeddings=True)
    tuned = saved(tmp_path / "t", seed=1)
    merge(aligned, tuned, "linear", 0.25, tmp_path / "m")
    a, t, m = (tensors(tmp_path / name) for name in "atm")
    expected = torch.lerp(a["model.embed_tokens.weight"], t["lm_head.weight"], 0.25)
    assert torch.equal(m["lm_head.weight"], expected)


def test_ties_are_those_of_the_architecture_where_the_configuration_is_silent(tmp_path):
    settings = {"vocab_size": 261, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    config = GemmaConfig(**settings, num_attention_heads=2, num_key_value_heads=2)
    for seed, name in enumerate("at"):
        set_seed(seed)
        GemmaForCausalLM(config).save_pretrained(tmp_path / name)
        path = tmp_path / name / "config.json"
        content = {key: value for key, value in json.loads(path.read_text()).items() if key != "tie_word_embeddings"}
        path.write_text(json.dumps(content))
    content = tensors(tmp_path / "t")
    content["lm_head.weight"] = content["model.embed_tokens.weight"] + 1
    save_file(content, tmp_path / "t" / "model.safetensors", metadata={"format": "pt"})
    m = tensors(merge(tmp_path / "a", tmp_path / "t", "linear", 0.5, tmp_path / "m"))
    expected = torch.lerp(tensors(tmp_path / "a")["model.embed_tokens.weight"], content["lm_head.weight"], 0.5)
    assert torch.equal(m["lm_head.weight"], expected)


def test_a_shared_head_that_is_stored_twice_is_left_out_silently(tmp_path, caplog):
    aligned = saved(tmp_path / "a", tie_word_embeddings=True)
    tuned = saved(tmp_path / "t", seed=1, tie_word_embeddings=True)
    content = tensors(tmp_path / "a")
    content["lm_head.weight"] = content["model.embed_tokens.weight"].clone()
    save_file(content, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    output = merge(aligned, tuned, "linear", 0.5, tmp_path / "m")
    assert "lm_head.weight" not in tensors(output)
    assert not caplog.records


def test_a_head_tied_by_tuning_is_refused(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1, tie_word_embeddings=True)
    with pytest.raises(ValueError, match=r"shares its head .*tie_word_embeddings = False"):
        merge(aligned, tuned, "linear", 0.5, tmp_path / "m")


@pytest.mark.parametrize("method", ["linear", "slerp"])
@pytest.mark.parametrize(("a_rows", "t_rows"), [(261, 264), (264, 261)])
def test_resized_vocabulary(tmp_path, caplog, method, a_rows, t_rows):
    aligned = saved(tmp_path / "a", vocab_size=a_rows)
    tuned = saved(tmp_path / "t", seed=1, vocab_size=t_rows)
    output = merge(aligned, tuned, method, 0.5, tmp_path / "m")
    a, t, m = (tensors(tmp_path / name) for name in "atm")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(m[name][:261], merged(a[name][:261], t[name][:261], method, 0.5))
        assert torch.equal(m[name][261:], t[name][261:])
    assert f"{a_rows} rows" in caplog.text
    assert f"{t_rows} in" in caplog.text
    AutoModelForCausalLM.from_pretrained(output)


def test_resized_vocabulary_of_another_tokenizer_is_refused(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1, vocab_size=262)
    path = tmp_path / "t" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"The token '[ab]' has id \d+ in the aligned model and \d+ in the tuned"):
        merge(aligned, tuned, "linear", 0.5, tmp_path / "m")


def test_another_architecture_is_refused(tmp_path):
    aligned = saved(tmp_path / "a")
    wider = saved(tmp_path / "wide", intermediate_size=64)
    deeper = saved(tmp_path / "deep", num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"has shape \(.*only the vocabulary may differ"):
        merge(aligned, wider, "linear", 0.5, tmp_path / "m")
    with pytest.raises(ValueError, match=r"'model.layers.2.* they are not of one architecture"):
        merge(aligned, deeper, "linear", 0.5, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_tensors_of_the_aligned_model_alone_are_left_out_with_a_warning(tmp_path, caplog):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1)
    content = tensors(tmp_path / "a")
    content["mtp.weight"] = torch.ones(2)
    save_file(content, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    output = merge(aligned, tuned, "linear", 0.5, tmp_path / "m")
    assert "mtp.weight" not in tensors(output)
    assert "1 tensors" in caplog.text
    assert "'mtp.weight'" in caplog.text


def test_weights_by_pattern(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1)
    merge(aligned, tuned, "linear", {"*.layers.0.*": 0, "lm_head.weight": 0.25, "default": 1}, tmp_path / "m")
    a, t, m = (tensors(tmp_path / name) for name in "atm")
    for name in m:
        weight = 0 if ".layers.0." in name else 0.25 if name == "lm_head.weight" else 1
        assert torch.equal(m[name], merged(a[name], t[name], "linear", weight))


def test_pickled_weights_are_refused(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1)
    (tmp_path / "t" / "model.safetensors").rename(tmp_path / "t" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor .*save_pretrained"):
        merge(aligned, tuned, "linear", 0.5, tmp_path / "m")


def test_a_missing_shard_is_named(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1, max_shard_size="20KB")
    next((tmp_path / "t").glob("model-00002*")).unlink()
    with pytest.raises(FileNotFoundError, match="lacks model-00002"):
        merge(aligned, tuned, "linear", 0.5, tmp_path / "m")


def test_unmergeable_dtype_is_refused(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1)
    content = tensors(tmp_path / "t")
    content["lm_head.weight"] = content["lm_head.weight"].to(torch.float8_e4m3fn)
    save_file(content, tmp_path / "t" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"'lm_head.weight' .* F8_E4M3.*bfloat16"):
        merge(aligned, tuned, "linear", 0.5, tmp_path / "m")


def test_other_quantisation_is_refused(tmp_path):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1)
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ValueError, match=r"quantised with 'gptq'.*dequantize"):
        merge(aligned, tuned, "linear", 0.5, tmp_path / "m")


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist"):
        merge(str(tmp_path / "no"), saved(tmp_path / "t"), "linear", 0.5, tmp_path / "m")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_merge_leaves_nothing(tmp_path, monkeypatch, error):
    aligned, tuned = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1)
    blocks, calls = safe_sft.merging.formulas.merged_blocks, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 8:
            raise error
        return blocks(*args)

    monkeypatch.setattr(safe_sft.merging.formulas, "merged_blocks", failing)
    with pytest.raises(error):
        merge(aligned, tuned, "linear", 0.5, tmp_path / "m", max_shard_size="30KB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "t"]


KILLED = """
import os, sys
import safe_sft.merging.formulas as models
from safe_sft.merging import merge
blocks, calls = models.merged_blocks, []
def killing(*args):
    calls.append(args)
    if len(calls) == 8:
        os._exit(9)
    return blocks(*args)
models.merged_blocks = killing
merge(*sys.argv[1:3], "linear", 0.5, sys.argv[3], max_shard_size=sys.argv[4])
"""


@pytest.mark.parametrize("size", ["30KB", "5GB"])
def test_a_killed_merge_leaves_nothing_that_loads(tmp_path, size):
    names = [saved(tmp_path / "a"), saved(tmp_path / "t", seed=1), str(tmp_path / "m"), size]
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", KILLED, *names], cwd=root).returncode == 9
    assert not (tmp_path / "m").exists()
    (partial,) = tmp_path.glob(".m.partial-*")
    assert any(partial.iterdir())
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(partial)


def test_a_filled_output_is_kept_unless_overwritten(tmp_path, monkeypatch):
    aligned, tuned, output = saved(tmp_path / "a"), saved(tmp_path / "t", seed=1), tmp_path / "m"
    output.mkdir()
    merge(aligned, tuned, "linear", 0.5, output)  # an empty folder is taken
    (output / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"not empty\. Choose another folder, or pass `--overwrite`"):
        merge(aligned, tuned, "linear", 1, output)
    monkeypatch.setattr(safe_sft.merging.formulas, "merged_blocks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge(aligned, tuned, "linear", 1, output, overwrite=True)
    assert (output / "mine.txt").is_file()
    monkeypatch.undo()
    merge(aligned, tuned, "linear", 1, output, overwrite=True)
    assert not (output / "mine.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "m", "t"]


def test_hub_names_are_resolved_and_recorded(tmp_path, monkeypatch):
    def download(name, allow_patterns):
        folder = tmp_path / "snapshots" / name.replace("/", "--")
        if not folder.exists():
            make_model(len(name)).save_pretrained(folder)
            make_tokenizer().save_pretrained(folder)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    output = merge("org/aligned", "org/tuned-model", "linear", 0.5, tmp_path / "m")
    record = json.loads((output / "merge_config.json").read_text())
    assert record["revisions"] == {"aligned": "org--aligned", "tuned": "org--tuned-model"}
    card = (output / "README.md").read_text()
    assert "base_model:\n- org/aligned\n- org/tuned-model\nbase_model_relation: merge\n" in card


@pytest.mark.parametrize(
    ("aligned", "tuned", "method", "bases"),
    [
        ("org/model", "org/other", "linear", ()),
        ("org/model", "org/adapter", "linear", ()),
        ("org/model", "org/adapter", "slerp", ()),
        ("org/adapter", "org/adapter2", "linear", ("org/model",)),
        ("org/adapter", "org/other", "linear", ("org/model",)),
    ],
)
def test_each_side_is_downloaded_once(tmp_path, monkeypatch, aligned, tuned, method, bases):
    models, asked = {name: saved(tmp_path / name) for name in ("model", "other")}, []
    for seed, name in enumerate(("adapter", "adapter2")):
        saved_adapter(tmp_path / name, models["model"], seed)
        path = tmp_path / name / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "org/model"}))
        make_tokenizer().save_pretrained(tmp_path / name)

    def download(name, allow_patterns):
        asked.append((name, "model.safetensors" in allow_patterns))
        return str(tmp_path / name.removeprefix("org/"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    merge(aligned, tuned, method, 0.5, tmp_path / "m")
    assert sorted(name for name, _ in asked) == sorted([aligned, tuned, *bases])
    # A rescaled or concatenated adapter needs no weights of its base, which are large.
    assert (aligned, True) in asked or (method == "linear" and "adapter" in tuned)
    assert (tuned, True) in asked
