"""Safe LoRA and SafeMERGE of adapters, against their formulas on the dense updates."""

import json
import warnings

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import save_file

from safe_sft.merging import merge
from safe_sft.merging.loaded import load_merge
from tests.merging.helpers import (
    EMBEDDING,
    as_maps,
    dense,
    logits,
    naive_projection,
    saved_adapter,
    tensors,
)

KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 24}},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_safe_lora_of_an_adapter_is_an_adapter(chain, tmp_path, kind):
    names = chain()
    adapter = saved_adapter(tmp_path / "ad", names["a"], **KINDS[kind])
    a, b = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    tuned = dense(names["a"], adapter)
    cosines = {}
    for name in a:
        update = tuned[name].double() - a[name].double()
        if a[name].ndim == 2 and update.any():
            aligned, base, change = as_maps(name, a[name], b[name], update)
            cosines[name] = naive_projection(aligned, base, change)
    threshold = sorted(cosine for _, cosine in cosines.values())[len(cosines) // 2 - 1] + 1e-5
    output = merge(names["a"], adapter, "safe_lora", None, tmp_path / "m", base=names["b"], threshold=threshold)
    result = AutoPeftModelForCausalLM.from_pretrained(output).merge_and_unload().state_dict()
    decided = json.loads((output / "merge_config.json").read_text())["decided"]
    assert 0 < decided["changed"] < decided["updates"] == len(cosines)
    for name, (update, cosine) in cosines.items():
        assert decided["weights"][name]["cosine"] == pytest.approx(cosine, abs=1e-4)
        stored = update.T if name == EMBEDDING else update
        wanted = a[name].double() + stored if cosine <= threshold else tuned[name].double()
        torch.testing.assert_close(result[name].double(), wanted, rtol=1e-5, atol=1e-5)
    before, after = tensors(tmp_path / "ad"), tensors(output)
    kept = [key for key in before if torch.equal(before[key], after[key])]
    assert len(before) - len(kept) == decided["changed"]  # only factors B, or replaced tensors, and only those


def test_the_bias_of_an_adapter_is_no_matrix_and_stays(chain, tmp_path):
    names = chain()
    adapter = saved_adapter(tmp_path / "ad", names["a"], lora_bias=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's: such an adapter cannot be added to the weights
        output = merge(names["a"], adapter, "safe_lora", None, tmp_path / "m", base=names["b"], threshold=1)
    before, after = tensors(tmp_path / "ad"), tensors(output)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if key.endswith("lora_B.weight")}


def test_a_bf16_adapter_keeps_its_dtype(chain, tmp_path):
    names = chain(torch.bfloat16)
    adapter = saved_adapter(tmp_path / "ad", names["a"])
    content = {key: t.bfloat16() for key, t in tensors(tmp_path / "ad").items()}
    save_file(content, tmp_path / "ad" / "adapter_model.safetensors", metadata={"format": "pt"})
    output = merge(names["a"], adapter, "safe_lora", None, tmp_path / "m", base=names["b"], threshold=1)
    a, b, result = tensors(tmp_path / "a"), tensors(tmp_path / "b"), tensors(output)
    for key, value in result.items():
        assert value.dtype == torch.bfloat16
        if "lora_B" in key:
            name = key.removeprefix("base_model.model.").replace(".lora_B", "")
            wanted, _ = naive_projection(a[name], b[name], content[key])
            torch.testing.assert_close(value, wanted.bfloat16())


def test_safemerge_of_two_adapters_is_an_adapter(chain, tmp_path):
    names = chain()
    task = saved_adapter(tmp_path / "task", names["a"], 1, use_rslora=True)
    safe = saved_adapter(tmp_path / "safe", names["a"], 2, r=2, target_modules=["q_proj", "v_proj"])
    a, b = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    tuned, safest = dense(names["a"], task), dense(names["a"], safe)
    updated = [n for n in a if (tuned[n] - a[n]).any()]
    cosines = {n: naive_projection(a[n], b[n], tuned[n].double() - a[n].double())[1] for n in updated}
    threshold = sorted(cosines.values())[2] - 1e-6  # two of four are merged
    sides = {"base": names["b"], "safe": safe, "threshold": threshold}
    output = merge(names["a"], task, "safemerge", None, tmp_path / "m", **sides)
    config = json.loads((output / "adapter_config.json").read_text())
    result = AutoPeftModelForCausalLM.from_pretrained(output).merge_and_unload().state_dict()
    for name in a:
        start, end, other = a[name].double(), tuned[name].double(), safest[name].double()
        merges = name in cosines and cosines[name] < threshold
        wanted = start + 0.8 * (end - start) + 0.2 * (other - start) if merges else end
        torch.testing.assert_close(result[name].double(), wanted, rtol=1e-5, atol=1e-5)
    assert json.loads((output / "merge_config.json").read_text())["decided"]["changed"] == 2
    assert config["use_rslora"] is False
    loaded = load_merge(names["a"], task, "safemerge", **sides)
    loaded.set_weight(0.8)
    again = AutoPeftModelForCausalLM.from_pretrained(output)
    torch.testing.assert_close(logits(loaded.model), logits(again), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["magmax", "safemerge", "safe_lora"])
def test_adapters_that_give_no_adapter_become_full_models(chain, tmp_path, caplog, method):
    names = chain()
    aligned = saved_adapter(tmp_path / "aligned", names["b"], 1)
    tuned = saved_adapter(tmp_path / "tuned", names["b"], 2)
    sides = {"base": names["b"], **({"safe": names["a"]} if method == "safemerge" else {})}
    sides |= {} if method == "magmax" else {"threshold": 1.0}
    output = merge(aligned, tuned, method, None, tmp_path / "m", **sides)
    assert "needs full weights" in caplog.text
    name = "model.layers.0.self_attn.q_proj.weight"
    b, s = tensors(tmp_path / "b")[name].double(), tensors(tmp_path / "a")[name].double()
    a, t, m = dense(names["b"], aligned)[name].double(), dense(names["b"], tuned)[name].double(), tensors(output)[name]
    wanted = {
        "magmax": torch.where((t - b).abs() > (a - b).abs(), t, a),
        "safe_lora": a + naive_projection(a, b, t - a)[0],
        "safemerge": 0.8 * t + 0.2 * s,
    }[method]
    torch.testing.assert_close(m.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_loaded_adapter_takes_every_threshold(chain, tmp_path):
    names = chain()
    adapter = saved_adapter(tmp_path / "ad", names["a"])
    with pytest.raises(ValueError, match=r"`threshold=0.5` is what `set_weight` sets with `safe_lora`"):
        load_merge(names["a"], adapter, "safe_lora", base=names["b"], threshold=0.5)
    loaded = load_merge(names["a"], adapter, "safe_lora", base=names["b"])
    for threshold in (1.0, 0.0):
        loaded.set_weight(threshold)
        folder = tmp_path / f"{threshold}"
        expected = merge(names["a"], adapter, "safe_lora", None, folder, base=names["b"], threshold=threshold)
        assert torch.equal(logits(loaded.model), logits(AutoPeftModelForCausalLM.from_pretrained(expected)))
