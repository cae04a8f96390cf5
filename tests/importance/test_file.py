import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import safe_sft.importance.partial as partial_module
from safe_sft.importance import Importance, anchor_space, build_importance, load_importance
from safe_sft.importance.file import mean_importance
from safe_sft.importance.partial import PartialSums
from safe_sft.models.fingerprint import _stride, model_fingerprint
from safe_sft.storage.names import IMPORTANCE_FILE
from tests.conftest import make_model, make_tokenizer
from tests.importance.helpers import lora_model, token_rows


def build(model=None, space="weight", estimator="empirical", rows=None, **kwargs) -> Importance:
    model = model if model is not None else lora_model(dtype=torch.float32)
    rows = rows if rows is not None else token_rows()
    return build_importance(
        model, make_tokenizer(), anchor_space(model, space), rows, estimator=estimator, batch_size=2, **kwargs
    )


def load(folder, model, space="weight", estimator="empirical", tokenizer=None) -> Importance:
    anchored = anchor_space(model, space)
    return load_importance(str(folder), model, tokenizer or make_tokenizer(), anchored, estimator=estimator)


def dense_mean(importance: Importance) -> float:
    sums, numbers = 0.0, 0
    for name, tensor in importance.tensors.items():
        if name.endswith(".rows"):
            matrix = torch.outer(tensor, importance.tensors[name.replace(".rows", ".columns")]) / tensor.sum()
        elif name.endswith(".columns"):
            continue
        else:
            matrix = tensor
        sums, numbers = sums + matrix.sum().item(), numbers + matrix.numel()
    return sums / numbers


@pytest.mark.parametrize("overrides", [{}, {"modules_to_save": ["lm_head"]}], ids=["lora", "lora and head"])
def test_normalised_to_mean_one_over_the_dense_weights(overrides):
    raw = build(lora_model(dtype=torch.float32, **overrides))
    normalised = raw.normalized("mean")
    assert dense_mean(normalised) == pytest.approx(1, rel=1e-5)
    assert normalised.factor == pytest.approx(dense_mean(raw), rel=1e-5)
    back = normalised.normalized("none")
    assert back.factor == pytest.approx(1)
    for name, tensor in raw.tensors.items():
        torch.testing.assert_close(back.tensors[name], tensor)


def test_zero_importance_cannot_be_normalised():
    raw = build()
    nothing = Importance({name: torch.zeros_like(t) for name, t in raw.tensors.items()}, raw.provenance)
    with pytest.raises(ValueError, match="cannot be normalised"):
        nothing.normalized("mean")


@pytest.mark.parametrize("normalization", ["mean", "none"])
def test_a_file_holds_everything(tmp_path, normalization):
    made = build().normalized(normalization)
    made.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [IMPORTANCE_FILE]
    back = Importance.load(tmp_path)
    assert (back.provenance, back.factor, back.normalization) == (made.provenance, made.factor, normalization)
    assert (back.provenance.sequences, back.provenance.tokens) == (6, sum(r.supervised_tokens for r in token_rows()))
    for name, tensor in made.tensors.items():
        torch.testing.assert_close(back.tensors[name], tensor, rtol=2**-8, atol=0)
    with safe_open(tmp_path / IMPORTANCE_FILE, "pt") as file:
        (header,) = [json.loads(v) for k, v in file.metadata().items() if k.startswith("safe_sft")]
    assert {"estimator", "space", "sequences", "tokens", "normalization", "factor", "model", "data", "version"} <= {
        *header
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_model_in_any_dtype_takes_the_file(tmp_path, dtype):
    build().save(tmp_path)
    load(tmp_path, lora_model(dtype=dtype, r=2))  # another rank has the same effective weights


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ({"model": {"seed": 1}}, r"its model \(vectors\)"),
        ({"model": {"num_hidden_layers": 3}}, r"its model \(architecture\) .*2 layers.*3 layers"),
        ({"trained": True}, r"its model \(adapter\)"),
    ],
)
def test_another_model_is_refused(tmp_path, difference, said):
    build().save(tmp_path)
    with pytest.raises(ValueError, match=said + ".*safe-sft importance"):
        load(tmp_path, lora_model(dtype=torch.float32, **difference))


def test_another_matrix_is_refused(tmp_path):
    build().save(tmp_path)
    model = lora_model(dtype=torch.float32)
    with torch.no_grad():
        model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight.mul_(1.1)
    with pytest.raises(ValueError, match=r"its model \(matrices\)"):
        load(tmp_path, model)


def test_another_space_estimator_tokenizer_or_layout_is_refused(tmp_path):
    build().save(tmp_path)
    model = lora_model(dtype=torch.float32)
    with pytest.raises(ValueError, match="its space is 'weight', that of this run is 'adapter'"):
        load(tmp_path, model, space="adapter")
    with pytest.raises(ValueError, match="its estimator is 'empirical', that of this run is 'mas'"):
        load(tmp_path, model, estimator="mas")
    other = make_tokenizer()
    other.add_tokens(["new"])
    with pytest.raises(ValueError, match="its tokenizer is"):
        load(tmp_path, model, tokenizer=other)
    few = lora_model(dtype=torch.float32, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="another adapter layout"):
        anchor_space(few, "weight").weigh(load(tmp_path, few).tensors)


def test_a_source_without_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"has no {IMPORTANCE_FILE}"):
        Importance.load(tmp_path)
    with pytest.raises(ValueError, match="neither a folder nor a repository"):
        Importance.load("nobody/has-this")  # tests are offline
    save_file({"x": torch.zeros(1)}, tmp_path / IMPORTANCE_FILE)
    with pytest.raises(ValueError, match="was not written by"):
        Importance.load(tmp_path)


@pytest.mark.parametrize("normalization", ["mean", "none"])
def test_online_ewc_is_a_decayed_sum_of_the_raw_estimates(normalization):
    first, second = build(rows=token_rows()[:3]), build(rows=token_rows()[3:])
    combined = second.after(first.normalized("mean"), 0.5)
    for name, tensor in combined.tensors.items():
        torch.testing.assert_close(tensor, second.tensors[name] + 0.5 * first.tensors[name])
    again = second.normalized(normalization).after(first, 0.5)
    assert again.normalization == normalization
    torch.testing.assert_close(again.normalized("none").tensors, combined.tensors)


def test_online_ewc_needs_the_same_estimator_and_layout():
    with pytest.raises(ValueError, match="its estimator is 'mas'"):
        build().after(build(estimator="mas"), 0.5)
    with pytest.raises(ValueError, match="another adapter layout"):
        build().after(build(lora_model(dtype=torch.float32, target_modules=["q_proj"])), 0.5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("space", ["adapter", "weight"])
def test_a_stopped_estimation_goes_on_where_it_was(tmp_path, monkeypatch, space):
    expected = build(lora_model(trained=True, dtype=torch.float32), space).tensors
    monkeypatch.setattr(PartialSums.__init__, "__defaults__", (0.0,))
    real = partial_module.write_tensors

    def killed_after_two(path, tensors, metadata):
        real(path, tensors, metadata)
        if metadata["batches"] == "2":
            raise Killed

    monkeypatch.setattr(partial_module, "write_tensors", killed_after_two)
    with pytest.raises(Killed):
        build(lora_model(trained=True, dtype=torch.float32), space, folder=tmp_path)
    saved = []
    monkeypatch.setattr(partial_module, "write_tensors", lambda p, t, metadata: saved.append(metadata["batches"]))
    resumed = build(lora_model(trained=True, dtype=torch.float32), space, folder=tmp_path).tensors
    assert saved == ["3"]
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_sums_of_another_request_are_not_taken_up(tmp_path):
    sums = {"w": torch.ones(2)}
    PartialSums(tmp_path / "p.safetensors", "one", seconds=0).step(sums, 3)
    other = {"w": torch.zeros(2)}
    assert PartialSums(tmp_path / "p.safetensors", "two").load(other) == 0
    assert not other["w"].any()
    assert PartialSums(tmp_path / "p.safetensors", "one").load(other) == 3
    assert other["w"].all()


def test_mean_of_full_tuning():
    importance = build(make_model(), "adapter")
    total = sum(t.sum() for t in importance.tensors.values())
    assert mean_importance(importance.tensors) == pytest.approx(
        (total / sum(t.numel() for t in importance.tensors.values())).item(), rel=1e-5
    )


@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16])
def test_packed_weights_are_not_compared_however_they_are_stored(tmp_path, storage):
    make_model(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=storage)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=nf4)
    assert model_fingerprint(model, {})["matrices"] is None


def test_a_damaged_file_is_named(tmp_path):
    path = build().save(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"is damaged .* Copy it again, or compute it anew"):
        Importance.load(tmp_path)


def test_a_fingerprint_sees_every_row_of_an_embedding():
    model = make_model()
    before = model_fingerprint(model, {})
    with torch.no_grad():
        model.get_input_embeddings().weight[-3, 5] += 1
    after = model_fingerprint(model, {})
    assert before["vectors"] != after["vectors"]
    assert before["matrices"] == after["matrices"]


@pytest.mark.parametrize("width", [256, 300, 1])
def test_samples_are_of_many_columns(width):
    tensor = torch.zeros(4096, width)
    columns = {i * _stride(tensor) % width for i in range(64)}
    assert len(columns) == min(64, width)


def test_an_adapter_of_another_scaling_is_another():
    model = lora_model(trained=True, dtype=torch.float32)
    space = anchor_space(model, "weight")
    before = model_fingerprint(model, space.anchors())
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            layer.scaling["default"] *= 4
    assert model_fingerprint(model, space.anchors())["adapter"] != before["adapter"]
