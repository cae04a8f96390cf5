"""Weights that are cut up are whole where they are read; a stand-in for DeepSpeed (no dependency) gathers them."""

import enum
import sys
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from safe_sft.models.adapters import adapter_is_fresh
from safe_sft.models.parts import LogitHead
from safe_sft.models.sharding import gathered, whole
from tests.conftest import lora, make_model

Status = enum.Enum("Status", ["AVAILABLE", "NOT_AVAILABLE"])


def partition(parameter: nn.Parameter) -> None:
    """Empty `parameter` as ZeRO-3 does between uses."""
    parameter.ds_id, parameter.ds_tensor = id(parameter), parameter.data
    parameter.data, parameter.ds_status = torch.empty(0), Status.NOT_AVAILABLE


@contextmanager
def gather(parameters):
    for parameter in parameters:
        assert parameter.ds_status is Status.NOT_AVAILABLE
        parameter.data, parameter.ds_status = parameter.ds_tensor.clone(), Status.AVAILABLE
    yield
    for parameter in parameters:
        partition(parameter)


@pytest.fixture
def deepspeed(monkeypatch):
    module = ModuleType("deepspeed")
    module.__spec__, module.zero = ModuleSpec("deepspeed", None), SimpleNamespace(GatheredParameters=gather)
    monkeypatch.setitem(sys.modules, "deepspeed", module)


def test_whole_weights_are_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # importing it raises
    weight = nn.Parameter(torch.ones(2))
    with gathered(weight):
        assert whole(weight) is weight


def test_partitioned_weights_are_whole_inside_alone(deepspeed):
    weight, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    partition(weight)
    with gathered(weight, other):
        assert weight.tolist() == [1, 1]
        with gathered(weight):  # DeepSpeed refuses to gather twice
            assert weight.numel() == 2
        assert weight.numel() == 2
    assert weight.numel() == 0


def test_the_head_stays_whole_after_the_weight_is_emptied(deepspeed):
    model = make_model().requires_grad_(False)
    expected = model.lm_head.weight.clone()
    partition(model.lm_head.weight)
    head = LogitHead.of(model).gathered()
    assert model.lm_head.weight.numel() == 0
    assert torch.equal(head.weight, expected)
    assert head.weight.ds_status is Status.AVAILABLE  # TRL's kernels then use it as it is


@pytest.mark.parametrize("trained", [False, True])
def test_an_emptied_adapter_is_fresh_only_where_it_is(deepspeed, trained):
    from peft import get_peft_model

    model = get_peft_model(make_model(), lora())
    factors = [p for name, p in model.named_parameters() if "lora_B" in name]
    if trained:
        nn.init.ones_(factors[-1])
    for factor in factors:
        partition(factor)
    assert adapter_is_fresh(model) is not trained
