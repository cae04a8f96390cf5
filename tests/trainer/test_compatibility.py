"""What clashes is refused before training, with the method, the setting and a remedy."""

from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType

from safe_sft.trainer.compatibility import check_compatibility, must_join
from tests.conftest import lora, make_trainer


def launched(trainer, kind: DistributedType, *, zero: int = 0, fsdp2: bool = False, **parallelism: int):
    """`trainer` as it would be under a launcher that this machine does not have."""
    sizes = {"tp_size": 1, "cp_size": 1, "sp_size": 1, **parallelism}
    trainer.accelerator = SimpleNamespace(
        distributed_type=kind,
        is_fsdp2=fsdp2,
        num_processes=8,
        parallelism_config=SimpleNamespace(**sizes) if parallelism else None,
        state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=zero)),
    )
    return trainer


ZERO3 = {"kind": DistributedType.DEEPSPEED, "zero": 3}
REFUSED = {
    "FSDP1": ("der", {"kind": DistributedType.FSDP}, "does not work with FSDP1.*fsdp_version: 2"),
    "ZeRO-3, l2": ("l2", ZERO3, "with DeepSpeed ZeRO-3.*Choose `der`, `er` or `lwf`, or use FSDP2.*ZeRO-2, or DDP"),
    "ZeRO-3, ema": ("ema", ZERO3, "does not work with DeepSpeed ZeRO-3"),
    "ZeRO-2, agem": ("agem", {**ZERO3, "zero": 2}, "'agem'` does not work with DeepSpeed.*Use FSDP2 or DDP"),
    "ZeRO-3, safegrad": ("safegrad", ZERO3, "'safegrad'` does not work with DeepSpeed.*or choose `der` or `er`"),
    "tensor parallelism": ("l2", {"kind": DistributedType.MULTI_GPU, "tp_size": 2}, "Use data parallelism alone"),
    "context parallelism": ("l2", {"kind": DistributedType.MULTI_GPU, "cp_size": 2}, "Use data parallelism alone"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_launchers(tmp_path, name):
    method, launcher, message = REFUSED[name]
    trainer = launched(make_trainer(tmp_path, method), **launcher)
    with pytest.raises(ValueError, match=message):
        check_compatibility(trainer, trainer._methods)
    check_compatibility(trainer, [])  # plain fine-tuning is TRL's own affair


@pytest.mark.parametrize("launcher", [{"kind": DistributedType.DEEPSPEED, "zero": 2}, {"kind": DistributedType.FSDP}])
def test_other_launchers_pass(tmp_path, launcher):
    trainer = launched(make_trainer(tmp_path, "der+l2"), **launcher, fsdp2=True)
    check_compatibility(trainer, trainer._methods)


@pytest.mark.parametrize("optim", ["lomo", "galore_adamw_layerwise", "apollo_adamw_layerwise"])
def test_optimizers_that_step_in_the_backward_pass_are_refused_for_projections(tmp_path, optim):
    trainer = make_trainer(tmp_path, "agem")
    trainer.args.optim = optim
    with pytest.raises(ValueError, match=r"steps in the backward pass.*Set `optim: adamw_torch_fused`"):
        check_compatibility(trainer, trainer._methods)


def test_zero3_takes_a_frozen_head_and_an_online_teacher(tmp_path):
    trainer = launched(make_trainer(tmp_path, "der+er+lwf"), **ZERO3)
    check_compatibility(trainer, trainer._methods)
    assert must_join(trainer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft": lora(modules_to_save=["lm_head"])}, r"'er'` does not work with a trained head .*Train a LoRA"),
        ({"method": "der", "teacher": "cached"}, r"'der'` does not work with a cached teacher .*Start a fresh LoRA"),
        ({"method": "csft", "teacher": "cached"}, r"'csft'` does not work with a cached teacher .*Start a fresh LoRA"),
        (
            {"safety_eval_steps": 1},
            r"do not work with FSDP and DeepSpeed ZeRO-3: .*`safe-sft evaluate` on checkpoints",
        ),
    ],
)
def test_refused_under_zero3(tmp_path, settings, message):
    trainer = launched(make_trainer(tmp_path, **{"method": "er", **settings}), **ZERO3)
    with pytest.raises(ValueError, match=message):
        check_compatibility(trainer, trainer._methods)


def test_experts_with_an_auxiliary_loss_are_refused_under_zero3(tmp_path):
    trainer = launched(make_trainer(tmp_path, "er"), **ZERO3)
    trainer.aux_loss_enabled = True
    with pytest.raises(ValueError, match=r"an auxiliary loss of experts under .*Set `router_aux_loss_coef: 0`"):
        check_compatibility(trainer, trainer._methods)


def test_reentrant_checkpointing_under_ddp_is_refused_for_weight_penalties(tmp_path):
    reentrant = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    trainer = launched(make_trainer(tmp_path, "der+l2", **reentrant), DistributedType.MULTI_GPU)
    with pytest.raises(ValueError, match=r"'l2'` does not work with reentrant .*'use_reentrant': False"):
        check_compatibility(trainer, trainer._methods)
    check_compatibility(trainer, trainer._methods[:1])
