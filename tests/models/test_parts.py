"""Contexts that change a model for a while leave it as it was."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from safe_sft.losses import squared_logit_distance, tiled_squared_logit_distance
from safe_sft.models.adapters import adapter_from
from safe_sft.models.modes import placed
from safe_sft.models.parts import LogitHead
from tests.conftest import lora, make_model

IDS = torch.arange(5, 15)[None]


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def tuned(seed: int) -> nn.Module:
    model = get_peft_model(make_model(), lora())
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


def test_another_adapter_is_lent_to_the_model(tmp_path):
    other, model = tuned(1), tuned(2)
    other.save_pretrained(tmp_path)
    before, flags = logits(model), [(n, p.requires_grad) for n, p in model.named_parameters()]
    with adapter_from(model, str(tmp_path)) as lent:
        inside = logits(lent)
    assert torch.equal(inside, logits(other))
    assert not torch.equal(inside, before)
    assert torch.equal(logits(model), before)
    assert [(n, p.requires_grad) for n, p in model.named_parameters()] == flags


def test_the_adapter_is_given_back_after_an_error(tmp_path):
    tuned(1).save_pretrained(tmp_path)
    model = tuned(2)
    before = logits(model)
    with pytest.raises(RuntimeError, match="full"), adapter_from(model, str(tmp_path)):
        raise RuntimeError("the disk is full")
    assert torch.equal(logits(model), before)
    assert list(model.peft_config) == ["default"]


def test_a_frozen_linear_head_measures_distances_without_logits():
    torch.manual_seed(0)
    head = LogitHead(torch.randn(50, 6), torch.randn(50), scale=0.5)
    hidden, teacher = torch.randn(2, 7, 6)
    assert head.spares_logits
    exact = tiled_squared_logit_distance(hidden, head, teacher, head)
    torch.testing.assert_close(squared_logit_distance(hidden, teacher, head.gram()), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"softcap": 5.0}, {"trained": True}], ids=["capped", "trained"])
def test_a_head_that_is_trained_or_capped_does_not(settings):
    assert not LogitHead(torch.randn(50, 6), **settings).spares_logits


class Recorder(nn.Linear):
    """Notes where it is sent, for want of an accelerator."""

    def __init__(self):
        super().__init__(1, 1)
        self.journey = []

    def to(self, device):
        self.journey.append(torch.device(device).type)
        return self


def test_a_model_left_on_the_cpu_is_moved_and_brought_back():
    model = Recorder()
    with placed(model, torch.device("cuda")):
        assert model.journey == ["cuda"]
    assert model.journey == ["cuda", "cpu"]


def test_a_run_on_the_cpu_moves_nothing():
    model = Recorder()
    with placed(model, torch.device("cpu")):
        pass
    assert model.journey == []
