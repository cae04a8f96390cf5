"""MagMax, Safe LoRA and SafeMERGE of full models, against their formulas on dense matrices; and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, set_seed

from safe_sft.merging import MERGE_METHODS, magmax, merge
from tests.merging.helpers import (
    EMBEDDING,
    as_maps,
    dense,
    logits,
    naive_projection,
    saved,
    saved_adapter,
    tensors,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_safe_lora_of_full_models(chain, tmp_path, dtype, tied):
    names = chain(dtype, tie_word_embeddings=tied)
    output = merge(names["a"], names["t"], "safe_lora", None, tmp_path / "m", base=names["b"], threshold=0.9)
    b, a, t, m = (tensors(tmp_path / name) for name in "batm")
    decided = json.loads((output / "merge_config.json").read_text())["decided"]["weights"]
    changed = 0
    for name, value in m.items():
        if value.ndim < 2:
            assert name not in decided
            assert torch.equal(value, t[name])
            continue
        aligned, base, tuned = as_maps(name, a[name], b[name], t[name])
        update, cosine = naive_projection(aligned, base, tuned.double() - aligned.double())
        assert decided[name]["cosine"] == pytest.approx(cosine, abs=1e-5)
        assert decided[name]["changed"] == (cosine <= 0.9)
        if cosine <= 0.9:
            changed += 1
            wanted = (aligned.double() + update).to(dtype)
            torch.testing.assert_close(value, wanted.T if name == EMBEDDING else wanted)
        else:
            assert torch.equal(value, t[name])
    assert 0 < changed < len(decided)
    assert value.dtype == dtype
    AutoModelForCausalLM.from_pretrained(output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_safemerge_of_full_models(chain, tmp_path, dtype):
    names = chain(dtype)
    sides = {"base": names["b"], "safe": names["s"], "threshold": 0.9}
    output = merge(names["a"], names["t"], "safemerge", 0.7, tmp_path / "m", **sides)
    b, a, t, s, m = (tensors(tmp_path / name) for name in "batsm")
    changed = 0
    for name, value in m.items():
        aligned, base, tuned = as_maps(name, a[name], b[name], t[name])
        leaves = value.ndim == 2 and naive_projection(aligned, base, tuned.double() - aligned.double())[1] < 0.9
        changed += leaves
        start, task, safe = a[name].double(), t[name].double(), s[name].double()
        wanted = start + 0.7 * (task - start) + 0.3 * (safe - start) if leaves else task
        torch.testing.assert_close(value, wanted.to(dtype))
    assert changed == json.loads((output / "merge_config.json").read_text())["decided"]["changed"] > 0
    card = (output / "README.md").read_text()
    assert f"- changed by it: {changed} of 16 updates" in card
    assert "- threshold: `0.9`" in card


def test_magmax_of_three_models_in_shards(chain, tmp_path):
    names = chain(max_shard_size="20KB", tie_word_embeddings=True)
    tuned = [names["t"], names["s"]]
    output = merge(names["a"], tuned, "magmax", None, tmp_path / "m", base=names["b"], max_shard_size="30KB")
    b, a, t, s, m = (tensors(tmp_path / name) for name in "batsm")
    for name, value in m.items():
        assert torch.equal(value, magmax(b[name], [a[name], s[name], t[name]]))
    record = json.loads((output / "merge_config.json").read_text())
    assert (record["tuned"], record["tuned_2"], record["base"], record["weight"]) == (*tuned, names["b"], 1.0)
    assert f"- tuned 2: `{names['s']}`" in (output / "README.md").read_text()
    assert torch.isfinite(logits(AutoModelForCausalLM.from_pretrained(output))).all()


def test_layers_are_matched_by_name_and_not_by_order(chain, tmp_path):
    names = chain()
    sides = {"base": names["b"], "threshold": 0.9}
    merge(names["a"], names["t"], "safe_lora", None, tmp_path / "m", **sides)
    for name in "ba":
        content = tensors(tmp_path / name)
        keys = list(content)[:: -1 if name == "b" else 1]
        half = len(keys) // 2
        (tmp_path / name / "model.safetensors").unlink()
        for number, part in ((1, keys[half:]), (2, keys[:half])):
            save_file({k: content[k] for k in part}, tmp_path / name / f"model-{number:05d}-of-00002.safetensors")
        index = {k: f"model-{1 + (k in keys[:half]):05d}-of-00002.safetensors" for k in keys}
        (tmp_path / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    merge(names["a"], names["t"], "safe_lora", None, tmp_path / "again", **sides)
    first, second = tensors(tmp_path / "m"), tensors(tmp_path / "again")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("method", "number"), [("safe_lora", 0.0), ("safemerge", 1.0), ("magmax", 1.0)])
def test_an_untuned_model_stays_as_it_is(chain, tmp_path, method, number):
    names = chain()
    safe = {"safe": names["s"]} if method == "safemerge" else {}
    weight, threshold = (None, number) if method == "safe_lora" else (number, None)
    merge(names["a"], names["a"], method, weight, tmp_path / "m", base=names["b"], threshold=threshold, **safe)
    a, m = tensors(tmp_path / "a"), tensors(tmp_path / "m")
    assert all(torch.equal(m[name], a[name]) for name in a)


def test_a_model_that_was_not_aligned_leaves_the_tuned_one_as_it_is(chain, tmp_path, caplog):
    names = chain()
    with pytest.raises(ValueError, match="is the aligned model itself"):
        merge(names["a"], names["t"], "safe_lora", None, tmp_path / "m", base=names["a"], threshold=1)
    shutil.copytree(names["a"], tmp_path / "copy")
    merge(names["a"], names["t"], "safe_lora", None, tmp_path / "m", base=tmp_path / "copy", threshold=1)
    assert "changed none of 16 updates. Either tuning or alignment left each weight" in caplog.text
    merge(names["a"], names["t"], "safe_lora", None, tmp_path / "low", base=names["b"], threshold=0.01)
    assert "changed none of 16 updates. The smallest cosine is 0." in caplog.text
    t, m = tensors(tmp_path / "t"), tensors(tmp_path / "m")
    assert all(torch.equal(m[name], t[name]) for name in t)


@pytest.mark.parametrize("as_adapter", [False, True], ids=["model", "adapter"])
def test_weights_that_are_stored_transposed(tmp_path, as_adapter):
    settings = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 261, "n_positions": 32}
    for seed, name in enumerate("bat"):
        set_seed(seed)
        GPT2LMHeadModel(GPT2Config(**settings)).save_pretrained(tmp_path / name)
    b, a, t = (tensors(tmp_path / name) for name in "bat")
    tuned, layers = str(tmp_path / "t"), [name for name in t if t[name].ndim == 2]
    if as_adapter:
        config = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
        tuned = saved_adapter(tmp_path / "ad", str(tmp_path / "a"), **config)
        t = dense(str(tmp_path / "a"), tuned)
        layers = [name for name in layers if "c_attn" in name or "c_fc" in name]
    output = merge(tmp_path / "a", tuned, "safe_lora", None, tmp_path / "m", base=tmp_path / "b", threshold=1)
    m = dense(str(tmp_path / "a"), output) if as_adapter else tensors(output)
    for name in layers:  # all but the head, which is the embedding, are `(d_in, d_out)`
        update, _ = naive_projection(a[name].T, b[name].T, t[name].double().T - a[name].double().T)
        torch.testing.assert_close(m[name].double(), a[name] + update.T, rtol=1e-5, atol=1e-5)


def test_resized_vocabularies_keep_the_rows_of_the_tuned_model(tmp_path):
    base, aligned = saved(tmp_path / "b", vocab_size=261), saved(tmp_path / "a", seed=1, vocab_size=261)
    tuned = saved(tmp_path / "t", seed=2, vocab_size=264)
    merge(aligned, tuned, "safe_lora", None, tmp_path / "m", base=base, threshold=1)
    b, a, t, m = (tensors(tmp_path / name) for name in "batm")
    for name in (EMBEDDING, "lm_head.weight"):
        maps = as_maps(name, *(x[name][:261] for x in (a, b, t)))
        update, _ = naive_projection(maps[0], maps[1], maps[2].double() - maps[0].double())
        wanted = (maps[0].double() + update).float()
        torch.testing.assert_close(m[name][:261], wanted.T if name == EMBEDDING else wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(m[name][261:], t[name][261:])


def test_the_card_knows_every_merge():
    from safe_sft.hub.merge_card import FORMULAS

    assert list(FORMULAS) == list(MERGE_METHODS)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("safe_lora", {}, r"`safe_lora` needs the model before alignment, and `base` is not given"),
        ("magmax", {}, r"`magmax` needs the model before alignment"),
        ("safemerge", {"base": "b"}, r"`safemerge` needs a model or adapter .* safety alone, and `safe` is not"),
        (
            "linear",
            {"base": "b"},
            r"`base='b'` is not read by `linear`. Remove it; magmax, safe_lora",
        ),
        ("safe_lora", {"base": "b", "safe": "s"}, r"`safe='s'` is not read by `safe_lora`"),
        ("safe_lora", {"base": "b", "weight": 0.5}, r"`weight=0.5` is not read by `safe_lora`. Give `threshold`"),
        ("safe_lora", {"base": "b", "threshold": 1.5}, r"merge threshold is 1\.5, outside \[0, 1\]"),
        ("safemerge", {"base": "b", "safe": "s", "threshold": 2}, r"`threshold=2` is no cosine from 0 to 1"),
        ("safemerge", {"base": "b", "safe": "s", "weight": 2}, r"merge weight is 2, outside \[0, 1\]"),
        ("linear", {"weight": 0.5, "threshold": 0.5}, r"`threshold=0.5` is not read by `linear`"),
        ("linear", {}, "`linear` needs a merge weight"),
        ("slerp", {"tuned": ["t", "u"], "weight": 0.5}, r"`slerp` merges one tuned model, and 2 are given.*magmax"),
        ("magmax", {"tuned": [], "base": "b"}, "one tuned model, and 0 are given"),
    ],
)
def test_what_is_missing_or_not_read_is_named(tmp_path, method, arguments, message):
    given = {"tuned": "t", "weight": None, **arguments}
    with pytest.raises(ValueError, match=message):
        merge("a", given.pop("tuned"), method, given.pop("weight"), tmp_path / "m", **given)


def test_a_base_of_another_shape_is_refused(chain, tmp_path):
    names = chain()
    adapter = saved_adapter(tmp_path / "ad", names["a"])
    wider = saved(tmp_path / "wide", intermediate_size=64)
    with pytest.raises(ValueError, match=r"'model\.layers\.\d\.mlp\.down_proj.*wide', where it has shape"):
        merge(names["a"], adapter, "safe_lora", None, tmp_path / "m", base=wider)
    shallow = saved(tmp_path / "shallow", num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"layers\.1.* of .*shallow', which has no tensor of that name"):
        merge(names["a"], adapter, "safe_lora", None, tmp_path / "m", base=shallow)
    with pytest.raises(ValueError, match="not of one architecture"):
        merge(names["a"], names["t"], "safe_lora", None, tmp_path / "m", base=shallow)
    assert not (tmp_path / "m").exists()


def test_tuned_tensors_that_are_no_matrices_are_refused(chain, tmp_path):
    names = chain()
    for number, name in enumerate("bat"):
        content = {**tensors(tmp_path / name), "model.experts": torch.full((2, 3, 4), float(number))}
        save_file(content, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"'model\.experts' of shape \(2, 3, 4\) was tuned, and is no matrix"):
        merge(names["a"], names["t"], "safe_lora", None, tmp_path / "m", base=names["b"])


def test_the_only_copy_of_a_base_is_not_replaced(chain, tmp_path):
    names = chain()
    with pytest.raises(FileExistsError, match="is the folder of a model that is merged"):
        merge(names["a"], names["t"], "safe_lora", None, names["b"], base=names["b"], overwrite=True)
