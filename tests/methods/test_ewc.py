import pytest
import torch

from safe_sft.importance import Importance, anchor_space, build_importance
from safe_sft.methods import StepContext
from safe_sft.methods.ewc import EWC
from tests.conftest import make_tokenizer
from tests.importance.helpers import lora_model
from tests.methods.anchors import ROWS, STEP, head_only_model, hidden_state, setup


def penalty_after(model, method, token: int, distance: float) -> float:
    with torch.no_grad():
        model.lm_head.weight[token, 0] += distance
    return method.loss(STEP).item()


def test_a_number_by_hand():
    # A zero head gives all 8 tokens 1/8, so ∂(−log p)/∂W[v] = (1/8 − [v = y]) h. Token 4 is the answer of one row in
    # two: F = ((7/8)² + (1/8)²) / 2 · h₀² = 25/64 h₀², and at a distance of 2 the penalty is ½ F 2² = 25/32 h₀².
    model, method = head_only_model(), EWC()
    method.prepare(setup(model))
    assert penalty_after(model, method, 4, 2.0) == pytest.approx(
        25 / 32 * hidden_state(model)[0].item() ** 2, rel=1e-5
    )


def test_the_paper_draws_the_answers():
    # Drawn answers are any token with probability 1/8: F = (1/8)(7/8)² + (7/8)(1/8)² = 7/64, the same for all tokens.
    model, method = head_only_model(), EWC()
    preparation = setup(model, importance_estimator="sampled", per_device_train_batch_size=500)
    many = [row for row in ROWS for _ in range(1000)]
    method.prepare(type(preparation)(model, preparation.args, lambda: many, preparation.tokenizer))
    expected = 7 / 64 * hidden_state(model)[0].item() ** 2 / 2
    assert penalty_after(model, method, 6, 1.0) == pytest.approx(expected, rel=0.1)


def test_normalised_importance_has_mean_one():
    model, method = head_only_model(), EWC()
    method.prepare(setup(model, penalty_normalization="mean"))
    with torch.no_grad():
        model.lm_head.weight += 1.0
    assert method.loss(STEP).item() == pytest.approx(model.lm_head.weight.numel() / 2, rel=1e-5)


def test_the_penalty_counts_once_a_step():
    method = EWC()
    method.prepare(setup(head_only_model()))
    assert method.loss(StepContext(first_micro_step=False)) is None


def test_a_file_takes_the_place_of_the_rows(tmp_path):
    model = lora_model(dtype=torch.float32)
    space = anchor_space(model, None)
    made = build_importance(model, make_tokenizer(), space, ROWS, estimator="empirical", batch_size=2)
    made.normalized("mean").save(tmp_path)
    method, estimated = EWC(), EWC()
    preparation = setup(model, importance_path=str(tmp_path), penalty_normalization="none")

    def no_rows():
        raise AssertionError("the rows are not needed")

    method.prepare(type(preparation)(model, preparation.args, no_rows, preparation.tokenizer))
    estimated.prepare(setup(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    assert method.loss(STEP).item() == pytest.approx(estimated.loss(STEP).item(), rel=1e-2)
    assert Importance.load(tmp_path).normalization == "mean"
