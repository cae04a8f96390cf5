import pytest
import torch
from accelerate import PartialState
from torch.nn import functional as F
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from benchmarks.live_memory import allocations
from safe_sft.data import TokenizedRow
from tests.conftest import make_model
from tests.importance.helpers import (
    answer_logits,
    assert_close,
    brute_force,
    estimate,
    lora_bases,
    lora_model,
    margins,
    token_rows,
    trainable,
)

SMALL = {
    "vocab_size": 261,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("estimator", ["empirical", "mas"])
class TestEqualsBruteForce:
    def test_in_weight_space(self, estimator, trained):
        model = lora_model(trained=trained, use_rslora=trained)
        expected = margins(brute_force(model, lora_bases(model), token_rows(), estimator))
        assert_close(estimate(model, "weight", estimator), expected)

    def test_in_adapter_space(self, estimator, trained):
        model = lora_model(trained=trained)
        expected = brute_force(model, trainable(model), token_rows(), estimator)
        assert_close(estimate(model, "adapter", estimator), expected)
        a_matters = any(value.any() for name, value in expected.items() if "lora_A" in name)
        assert a_matters == trained  # with B = 0, nothing depends on A

    def test_of_every_parameter_in_full_tuning(self, estimator, trained):
        model = make_model(tie_word_embeddings=trained, attention_bias=True).double()
        expected = brute_force(model, trainable(model), token_rows(), estimator)
        assert_close(estimate(model, None, estimator), expected)

    def test_with_the_head_and_norms_trained_beside_the_adapter(self, estimator, trained):
        model = lora_model(
            trained=trained, modules_to_save=["lm_head", "norm"], target_modules=["q_proj", "down_proj"]
        )
        rest = {name: p for name, p in trainable(model).items() if "lora_" not in name}
        dense = brute_force(model, {**lora_bases(model), **rest}, token_rows(), estimator)
        expected = {**margins({name: dense.pop(name) for name in lora_bases(model)}), **dense}
        assert_close(estimate(model, "weight", estimator), expected)

    def test_with_an_adapted_head(self, estimator, trained):
        model = lora_model(trained=trained, target_modules=["v_proj", "lm_head"])
        expected = margins(brute_force(model, lora_bases(model), token_rows(), estimator))
        assert_close(estimate(model, "weight", estimator), expected)


@pytest.mark.parametrize("estimator", ["empirical", "sampled", "mas"])
@pytest.mark.parametrize("space", ["adapter", "weight"])
def test_batches_do_not_matter(space, estimator):
    model = lora_model(trained=True)
    assert_close(estimate(model, space, estimator, 4), estimate(model, space, estimator, 1))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # while the layers are tried out
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_does_not_matter(reentrant, monkeypatch):
    model = lora_model(trained=True)
    expected = estimate(model, "weight")
    model.enable_input_require_grads()
    model.base_model.model.activation_checkpointing_enable({"use_reentrant": reentrant})
    # Dropout is off in the tiny model, so it can stay in training mode, in which checkpointing is on.
    monkeypatch.setattr("safe_sft.importance.estimate.without_dropout", lambda m: torch.enable_grad())
    model.train()
    assert_close(estimate(model, "weight"), expected)


def test_the_model_is_left_as_it_was():
    model = lora_model()
    model.train()
    frozen = next(p for name, p in model.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(False)
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    estimate(model, "weight")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == before[name][0]
        assert torch.equal(parameter, before[name][1])
        assert parameter.grad is None
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_dropout_is_off():
    model = lora_model(trained=True, lora_dropout=0.5)
    model.train()
    assert_close(estimate(model, "weight"), estimate(lora_model(trained=True), "weight"))


def test_it_needs_no_trainer_before_it(monkeypatch):
    monkeypatch.setattr(PartialState, "_shared_state", {})
    model = lora_model(modules_to_save=["norm"])  # goes one sequence at a time, and says so
    assert estimate(model, "weight")


def test_bf16_models_sum_in_float32():
    model = lora_model(dtype=torch.bfloat16)
    got, expected = estimate(model, "weight"), estimate(lora_model(), "weight")
    for name, value in got.items():
        assert value.dtype == torch.float32
        assert (value - expected[name]).norm() < 0.1 * expected[name].norm()


def exact_fisher(model, rows) -> dict:
    """`E_y (Σ_t ∂log p(y_t))² = Σ_t Σ_v p_v (∂log p_v)²`, mean over rows: the draws are independent, of mean 0."""
    bases = lora_bases(model)
    for weight in bases.values():
        weight.requires_grad_(True)
    exact = {name: torch.zeros_like(weight) for name, weight in bases.items()}
    for row in rows:
        for log_p in F.log_softmax(answer_logits(model.eval(), row)[0], -1).flatten():
            gradients = torch.autograd.grad(log_p, list(bases.values()), retain_graph=True)
            for name, gradient in zip(bases, gradients, strict=True):
                exact[name] += log_p.detach().exp() * gradient.square() / len(rows)
    for weight in bases.values():
        weight.requires_grad_(False)
    return exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["no logits", "logits"])
def test_sampled_converges_to_the_exact_fisher(dtype):
    model = lora_model(model={"vocab_size": 7}, target_modules=["v_proj", "down_proj"], dtype=dtype)
    rows = [TokenizedRow([1, 3, 4, 5, 2], [-100, -100, 4, 5, 2]), TokenizedRow([1, 6, 3], [-100, 6, 3])]
    draws = [estimate(model, "weight", "sampled", rows=rows * 50, batch_size=100, seed=seed) for seed in range(20)]
    for name, expected in margins(exact_fisher(model, rows)).items():
        mean = torch.stack([draw[name] for draw in draws]).mean(0)
        assert (mean - expected).norm() < 0.05 * expected.norm()


def gemma():
    """Caps its logits."""
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=5.0))


def granite():
    """Scales its logits."""
    return GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=3.0))


@pytest.mark.parametrize("make", [gemma, granite, make_model])
@pytest.mark.parametrize("estimator", ["empirical", "mas"])
def test_without_logits_in_float32(estimator, make):
    model = make()
    model.requires_grad_(False)
    name, weight = next((n, p) for n, p in model.named_parameters() if "down_proj" in n)
    weight.requires_grad_(True)
    expected = brute_force(model, {name: weight}, token_rows(), estimator)
    assert_close(estimate(model, "adapter", estimator), expected, 1e-4)


def test_what_is_not_linear_is_said_once(caplog):
    estimate(make_model(), None)
    said = [record.message for record in caplog.records if "one sequence at a time" in record.message]
    assert len(said) == 1
    assert "norm" in said[0] or "embed" in said[0]
    caplog.clear()
    estimate(lora_model(), "weight")
    assert not caplog.records


@pytest.mark.parametrize("space", ["weight", "adapter"])
@pytest.mark.parametrize("estimator", ["empirical", "sampled", "mas"])
def test_checkpointing_changes_memory_alone(estimator, space):
    model = lora_model(trained=True, model={"num_hidden_layers": 8})
    rows = [TokenizedRow(row.input_ids * 8, row.labels * 8) for row in token_rows(2)]
    peaks, results = {}, {}
    for checkpointing in (False, True):
        with allocations() as found:
            results[checkpointing] = estimate(model, space, estimator, rows=rows, checkpointing=checkpointing)
        peaks[checkpointing] = found.peak
    assert_close(results[True], results[False], tolerance=1e-12)
    assert peaks[True] < peaks[False] / 2
    assert not any("forward" in vars(module) for module in model.modules())
