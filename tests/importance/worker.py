"""Importance and penalties in one process or in several; the first rank writes the results.

python -m torch.distributed.run --nproc_per_node 2 -m tests.importance.worker OUT
"""

import sys

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from safe_sft.importance import ESTIMATORS, anchor_space
from safe_sft.importance.estimate import Estimation, estimate_importance
from tests.conftest import make_model
from tests.importance.helpers import lora_model, token_rows
from tests.importance.test_space import move, random_importance


def estimates() -> dict:
    """Of every estimator in both spaces; 7 rows do not divide by 2."""
    model = lora_model(trained=True, dtype=torch.float32)
    return {
        (estimator, space): estimate_importance(
            model, anchor_space(model, space), token_rows(7), Estimation(estimator, batch_size=2)
        )
        for estimator in ESTIMATORS
        for space in ("adapter", "weight")
    }


def penalty_after_training(kind: str, ranks: int) -> dict:
    """The penalty, its gradient, and the anchors, after a forward and in one backward pass with its loss."""
    if kind == "full":
        model, layers = make_model(), lambda m: m.model.layers
    else:
        model, layers = lora_model(trained=kind != "fresh", dtype=torch.float32), lambda m: m.model.model.layers
    space = anchor_space(model, "weight" if kind in ("fresh", "weight") else "adapter")
    space.weigh(random_importance(space, torch.float32))
    move(model)
    if ranks > 1:
        for layer in layers(model):
            fully_shard(layer)
        fully_shard(model)
    results = {}
    for step in range(2):
        model.zero_grad()
        ids = torch.tensor([[1, 5, 6, 7]])  # the same on all ranks: their mean is one process's
        loss = model(input_ids=ids).logits.float().square().mean()
        penalty = space.penalty()
        (loss + penalty).backward()
        results[f"penalty {step}"] = penalty.detach()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if ranks > 1:
            assert all(isinstance(p.grad, DTensor) for p in trained.values())
        with torch.no_grad():
            for parameter in trained.values():
                parameter.add_(parameter.grad, alpha=-0.01)
        for name, parameter in trained.items():
            results[f"{name} {step}"] = whole(parameter.grad)
    results.update({f"state {name}": value.clone() for name, value in space.state_dict().items()})
    if kind == "full" and ranks > 1:  # each rank keeps its part alone
        assert all(isinstance(value, DTensor) for value in [*space._anchors.values(), *space._importance.values()])
    return results


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def main(out: str) -> None:
    ranks = PartialState(cpu=True).num_processes
    results = {
        "estimates": estimates(),
        **{kind: penalty_after_training(kind, ranks) for kind in ("full", "adapter", "fresh", "weight")},
    }
    if PartialState().is_main_process:
        torch.save(results, out)


if __name__ == "__main__":
    main(sys.argv[1])
    dist.destroy_process_group()
