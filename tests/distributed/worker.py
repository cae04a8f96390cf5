"""One run of every method, in one process or in several; the first rank writes the updates.

python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.worker MODE OUT METHOD…

MODE is ddp, fsdp2, zero2 or zero3; with `-nf4`, the base weights are in 4 bit. METHOD may name a `replay_ratio`, as in
`der:0.375`; with `!`, the safety gradient of a method that projects is turned around.

DeepSpeed is no dependency of the tests. `zero2` and `zero3` are run by hand where it is installed (`pip install
deepspeed`); with OUT of `ddp` in one process, `compare OUT OUT` then prints the relative difference of each method's
update.
"""

import json
import os
import sys
import tempfile
from contextlib import nullcontext
from unittest import mock

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from safe_sft.methods.registry import method_classes
from safe_sft.models.sharding import gathered, whole
from safe_sft.trainer import gradient_watch
from tests.conftest import (
    logged,
    make_model,
    make_tokenizer,
    make_trainer,
    move_off_the_anchor,
    nf4,
    pass_over_imports,
    relative_difference,
    trained_weights,
    turned_around,
)

#: What is logged of one method.
LOGGED = ("weight", "projected", "cosine")
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}

DEEPSPEED = {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu", "ACCELERATE_USE_DEEPSPEED": "true"}
#: ZeRO-3 leaves small parameters whole by default, and all of a tiny model's are.
DEEPSPEED_CONFIG = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage3_param_persistence_threshold": 0},
}


def let_accelerate_shard_on_cpu() -> None:
    """Accelerate turns FSDP on for several GPUs alone; gloo on CPU runs it as well."""
    os.environ.update(FSDP2)
    original = AcceleratorState.__init__

    def patched(self, *args, **kwargs):
        if not AcceleratorState._shared_state:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        original(self, *args, **kwargs)

    AcceleratorState.__init__ = patched


def let_deepspeed_run_on_cpu(stage: int) -> None:
    """Accelerate uses DeepSpeed with devices alone."""
    config = {**DEEPSPEED_CONFIG, "zero_optimization": {**DEEPSPEED_CONFIG["zero_optimization"], "stage": stage}}
    os.environ.update(DEEPSPEED, ACCELERATE_DEEPSPEED_CONFIG_FILE=json.dumps(config))
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)


def in_4_bit() -> dict:
    """A model with NF4 weights that FSDP2 can shard: they are stored as numbers of the dtype that is trained."""
    folder = tempfile.mkdtemp()
    make_model(hidden_size=64, intermediate_size=128).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return {"model": folder, "quantization_config": nf4(bnb_4bit_quant_storage=torch.float32)}


def run(method: str, ranks: int, **config) -> dict:
    """Two optimizer steps of two micro-steps, with the same rows in each step whatever the number of ranks.

    A name such as `der=auto` gives the weight as well, and one such as `der:0.125` the replay ratio.
    """
    method, turned, _ = method.partition("!")
    method, _, ratio = method.partition(":")
    method, _, follows = method.partition("=")
    methods = method_classes(method)
    weights = follows or [1.0] * sum(m.has_loss for m in methods)
    trainer = make_trainer(
        tempfile.mkdtemp(),
        method,
        max_steps=2,
        learning_rate=1e-2 if turned else 1e-3,  # what a projection leaves is small beside the weights' rounding
        gradient_accumulation_steps=2,
        per_device_train_batch_size=4 // ranks,
        **({"safety_weight": weights} if weights else {}),
        **({"replay_ratio": float(ratio)} if ratio else {}),
        **config,
    )
    for parameter in (p for p in trainer.model.parameters() if p.requires_grad):
        # Over 4-bit weights, TRL trains in bfloat16, whose rounding would hide differences.
        parameter.data = parameter.data.float()
    move_off_the_anchor(trainer)
    before = trained_weights(trainer)
    with (
        mock.patch.multiple(gradient_watch, EVERY=1, FIRST=0),  # measured in each step
        turned_around() if turned else nullcontext(),
    ):
        trainer.train()
    with trainer.deployed(), gathered(*trainer.model.parameters()):
        after = {name: whole(value) for name, value in trained_weights(trainer).items()}
    return {
        "update": {name: after[name] - before[name] for name in before},
        **{name: logged(trainer, name) for name in ("safety_loss", "safety/share")},
        **{kind: logged(trainer, f"safety/{method.split('+')[0]}_{kind}") for kind in LOGGED},
        "sharded": sorted(
            {type(m).__name__ for m in trainer.model.modules() for p in m.parameters(False) if whole(p) is not p}
        ),
    }


def main(mode: str, out: str, methods: list[str]) -> None:
    mode, _, bits = mode.partition("-")
    if mode == "fsdp2":
        let_accelerate_shard_on_cpu()
    stage = {"zero2": 2, "zero3": 3}.get(mode)
    if stage is not None:
        let_deepspeed_run_on_cpu(stage)
    config = in_4_bit() if bits else {} if stage is None else {"use_cpu": False}
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    pass_over_imports()
    results = {method: run(method, ranks, **config) for method in methods}
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(results, out)


def compare(one: str, several: str) -> None:
    left, right = torch.load(one, weights_only=True), torch.load(several, weights_only=True)
    for method, result in right.items():
        print(f"{method:<12} {relative_difference(result['update'], left[method]['update']):.1e}")


if __name__ == "__main__" and sys.argv[1] == "compare":
    compare(*sys.argv[2:])
elif __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
