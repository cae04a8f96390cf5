"""Weight penalties as a share of the aligned weights: a weight means the same whatever the weights' own scale."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BitsAndBytesConfig, GPT2Config, GPT2LMHeadModel

from safe_sft.importance import anchor_space
from safe_sft.methods import Preparation
from safe_sft.methods.ewc import EWC
from safe_sft.methods.l2 import L2
from safe_sft.models.adapters import active_lora_layers, base_weight
from tests.conftest import lora, make_model, make_tokenizer, make_trainer, nf4
from tests.methods.anchors import STEP, head_only_model, setup

WEIGHT = torch.tensor([[1.0, 2.0, 0.0], [0.0, 2.0, 4.0]])  # ‖W‖² = 25
DOWN, UP = torch.tensor([[3.0, 0.0, 4.0]]), torch.tensor([[0.0], [0.5]])  # ‖ΔW‖² = 0.25 · 25


class OneLayer(nn.Module):
    """A linear layer and nothing else."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.layer = nn.Linear(weight.size(1), weight.size(0), bias=False)
        self.layer.weight.data = weight.clone()


def share(weight, down, up, importance=None, method=L2) -> float:
    """The relative penalty of a LoRA layer over `weight`, fresh at first, then moved by `up · down`."""
    model = get_peft_model(OneLayer(weight), LoraConfig(r=1, lora_alpha=1, target_modules=["layer"]))
    made = method()
    args = SimpleNamespace(importance_space=None, penalty_normalization="relative")
    made._weigh = lambda _: None if importance is None else made._space.weigh(importance)
    made.prepare(Preparation(model, args, list, make_tokenizer()))
    ((_, layer),) = active_lora_layers(model)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(down)
        layer.lora_B["default"].weight.copy_(up)
    return made.loss(STEP).item()


def test_a_number_by_hand():
    assert share(WEIGHT, DOWN, UP) == pytest.approx(0.25)


def test_an_important_number_by_hand():
    # Ω = ρκᵀ/Σρ with ρ = (1, 3), κ = (2, 2, 0): ½, ½, 0 in the first row and 3/2, 3/2, 0 in the second.
    # Σ Ω W² = ½·1 + ½·4 + 3/2·4 = 8.5; ΔW has 1.5 and 2 in its second row: Σ Ω ΔW² = 3/2 · 2.25 = 3.375
    ((name, _),) = active_lora_layers(
        get_peft_model(OneLayer(WEIGHT), LoraConfig(r=1, lora_alpha=1, target_modules=["layer"]))
    )
    rows, columns = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0, 0.0])
    for scale in (1.0, 1e-6):  # the scale of the importance cancels
        tensors = {f"{name}.default.rows": scale * rows, f"{name}.default.columns": scale * columns}
        assert share(WEIGHT, DOWN, UP, tensors) == pytest.approx(3.375 / 8.5, rel=1e-5)


def test_the_scale_of_a_layer_does_not_count():
    assert share(8 * WEIGHT, 8 * DOWN, UP) == pytest.approx(share(WEIGHT, DOWN, UP))


def test_the_width_does_not_count():
    """Each unit twice, with half its weight: the layer does the same thing to the same inputs, given twice."""
    twice = torch.cat([torch.cat([WEIGHT, WEIGHT], 1)] * 2) / 2
    assert share(twice, torch.cat([DOWN, DOWN], 1) / 2, torch.cat([UP, UP])) == pytest.approx(share(WEIGHT, DOWN, UP))


def test_the_rank_and_scaling_of_the_adapter_do_not_count():
    model = get_peft_model(OneLayer(WEIGHT), LoraConfig(r=2, lora_alpha=8, target_modules=["layer"]))
    method = L2()
    args = SimpleNamespace(importance_space=None, penalty_normalization="relative")
    method.prepare(Preparation(model, args, list, make_tokenizer()))
    ((_, layer),) = active_lora_layers(model)
    with torch.no_grad():  # scaling 4
        layer.lora_A["default"].weight.copy_(torch.cat([DOWN, DOWN]))
        layer.lora_B["default"].weight.copy_(torch.cat([UP / 8, UP / 8], 1))
    assert method.loss(STEP).item() == pytest.approx(0.25)


def test_full_tuning_is_relative_to_all_that_is_trained():
    model, method = make_model(), L2()
    method.prepare(setup(model, penalty_normalization="relative"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert method.loss(STEP).item() == pytest.approx(0.01, rel=1e-4)


def test_trained_adapters_count_in_what_is_anchored():
    model = get_peft_model(make_model(), lora())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    dense = sum(
        (base_weight(layer, name).double() + layer.get_delta_weight("default").double()).square().sum().item()
        for name, layer in active_lora_layers(model)
    )
    assert anchor_space(model, "weight").size() == pytest.approx(dense, rel=1e-5)


def test_transposed_weights_are_read_as_they_act():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=261, n_positions=32, n_embd=8, n_layer=1, n_head=2))
    wrapped = get_peft_model(model, LoraConfig(r=1, target_modules=["c_attn"], fan_in_fan_out=True))
    space = anchor_space(wrapped, None)
    rows, columns = torch.arange(1.0, 25.0), torch.arange(1.0, 9.0)
    ((name, layer),) = active_lora_layers(wrapped)
    space.weigh({f"{name}.default.rows": rows, f"{name}.default.columns": columns})
    weight = layer.get_base_layer().weight.double()  # (in, out)
    dense = (weight.T.square() * rows[:, None] * columns / rows.sum()).sum().item()
    assert space.size() == pytest.approx(dense, rel=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights_are_read(tmp_path, bits):
    make_model().save_pretrained(tmp_path / "model")
    quantised = nf4() if bits == 4 else BitsAndBytesConfig(load_in_8bit=True)
    trainer = make_trainer(tmp_path, "l2", model=str(tmp_path / "model"), quantization_config=quantised)
    whole = get_peft_model(make_model(), lora())
    dense = sum(base_weight(layer, name).square().sum().item() for name, layer in active_lora_layers(whole))
    (method,) = trainer._methods
    assert method.state_dict()["penalty_unit"].item() == pytest.approx(dense / 2, rel={4: 0.12, 8: 0.01}[bits])
    trainer.train()  # reading has not broken them


def test_weights_without_importance_are_refused():
    # A zero head has no size.
    with pytest.raises(ValueError, match=r"the size 0\.0.*penalty_normalization: none"):
        EWC().prepare(setup(head_only_model(), penalty_normalization="relative"))


def test_the_unit_goes_with_the_checkpoint():
    model, method = make_model(), L2()
    preparation = setup(model, penalty_normalization="relative")
    method.prepare(preparation)
    state = method.state_dict()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    resumed = L2()
    resumed.prepare(preparation)
    assert resumed.loss(STEP).item() == 0.0
    resumed.load_state_dict(state)
    assert resumed.loss(STEP).item() == pytest.approx(4.0, rel=1e-4)
