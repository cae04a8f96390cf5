"""L2 in both spaces, against dense matrices."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from safe_sft.importance import anchor_space
from safe_sft.models.adapters import active_lora_layers
from tests.conftest import lora, make_model


def effective_weights(model) -> list[torch.Tensor]:
    return [layer.get_delta_weight("default").double() for _, layer in active_lora_layers(model)]


def randomise(model, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def test_by_hand():
    """One LoRA layer, rank 1, scaling 2: ΔW = 2·b·aᵀ."""
    model = get_peft_model(make_model(), LoraConfig(r=1, lora_alpha=2, target_modules=["layers.0.self_attn.q_proj"]))
    space = anchor_space(model, None)
    ((_, layer),) = active_lora_layers(model)
    with torch.no_grad():
        layer.lora_A["default"].weight.zero_()[0, :2] = torch.tensor([3.0, 4.0])
        layer.lora_B["default"].weight.zero_()[0, 0] = 0.5
    # ΔW has the entries 3 and 4: ½ (9 + 16)
    assert space.penalty().item() == pytest.approx(12.5)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("start", ["fresh", "trained"])
def test_weight_space_equals_dense_effective_weights(start, rslora):
    model = get_peft_model(make_model(), lora(use_rslora=rslora))
    if start == "trained":
        randomise(model, 1)
    anchors = effective_weights(model)
    space = anchor_space(model, "weight")
    assert space.penalty().item() == 0.0
    randomise(model, 2)
    dense = sum((w - a).square().sum() for w, a in zip(effective_weights(model), anchors, strict=True)) / 2
    assert space.penalty().item() == pytest.approx(dense.item(), rel=1e-5)


def test_default_space_follows_the_model():
    fresh = get_peft_model(make_model(), lora())
    assert type(anchor_space(fresh, None)).__name__ == "EffectiveWeightSpace"
    randomise(fresh, 0)
    assert type(anchor_space(fresh, None)).__name__ == "ParameterSpace"
    assert type(anchor_space(make_model(), None)).__name__ == "ParameterSpace"


def test_modules_to_save_are_anchored_beside_the_factors():
    model = get_peft_model(make_model(), lora(modules_to_save=["lm_head"]))
    space = anchor_space(model, "weight")
    with torch.no_grad():
        model.get_output_embeddings().weight.add_(0.5)
    assert space.penalty().item() == pytest.approx(261 * 32 * 0.25 / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [({"use_dora": True}, "Dora"), ({"target_modules": ["embed_tokens"]}, "LoRA on an embedding")],
)
def test_other_adapters_are_refused_with_a_remedy(config, reason):
    model = get_peft_model(make_model(), lora(**config))
    with pytest.raises(ValueError, match=f"{reason}.*Set `importance_space: adapter`"):
        anchor_space(model, "weight")


def test_anchors_of_another_layout_are_refused():
    one, other = (anchor_space(get_peft_model(make_model(), lora(r=r)), "adapter") for r in (4, 8))
    with pytest.raises(ValueError, match="are those of another model or adapter"):
        one.load_state_dict(other.state_dict())
