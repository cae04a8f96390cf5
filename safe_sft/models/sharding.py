"""Sharded parameters: under FSDP2, where each rank holds and penalises its own part, and under DeepSpeed ZeRO-3."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor


def settle(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Move `tensor` to the device of `parameter`, and shard it in the same way.

    Rank 0 distributes a tensor that is not sharded yet: the other ranks may not have loaded the weights
    (`fsdp_cpu_ram_efficient_loading`).
    """
    if isinstance(tensor, DTensor) or not isinstance(parameter, DTensor):
        return tensor if tensor.device == parameter.device else tensor.to(parameter.device)
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def settle_whole(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Move the whole `tensor` to the device of `parameter`, equal on every rank that holds a part of `parameter`."""
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        return distribute_tensor(tensor.to(parameter.device), mesh, [Replicate()] * mesh.ndim).to_local()
    return tensor if tensor.device == parameter.device else tensor.to(parameter.device)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this rank holds only a part of a tensor."""
    return isinstance(tensor, DTensor) or _is_partitioned(tensor)


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part, with gradient."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor, with gradient; under ZeRO-3 without, in memory as long as the result is."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    if not _is_partitioned(tensor):
        return tensor
    with gathered(tensor):
        held = tensor.detach()  # keeps the storage that the parameter lets go of
        held.ds_status = tensor.ds_status  # type: ignore[attr-defined]  # TRL's kernels gather what is not marked whole
    return held


@contextmanager
def gathered(*parameters: Tensor) -> Iterator[None]:
    """Make `parameters` whole inside this context under DeepSpeed ZeRO-3, which empties them between uses.

    Without ZeRO-3 it does nothing. Every rank must enter it with the same parameters, and none may change them.
    """
    # DeepSpeed does not take back what is whole already because a module is using it, as with tied embeddings.
    empty = [p for p in parameters if _is_partitioned(p) and p.ds_status.name != "AVAILABLE"]  # type: ignore[attr-defined]
    if not empty:
        yield
        return
    from deepspeed import zero

    with zero.GatheredParameters(empty):
        yield


def _is_partitioned(tensor: Tensor) -> bool:
    return hasattr(tensor, "ds_id")


def sum_over_shards(part: Tensor, sharded: DTensor) -> Tensor:
    """Sum every rank's `part` of a quantity of `sharded`; the gradient is that of this rank's `part` alone.

    A shard needs this, since its gradient is not averaged over ranks, as that of a whole parameter is.
    """
    total = part.detach().clone()
    for dimension, placement in enumerate(sharded.placements):
        if placement.is_shard():
            dist.all_reduce(total, group=sharded.device_mesh.get_group(dimension))
    return part + (total - part.detach())


def reshard(model: nn.Module) -> None:
    """Free what a forward under FSDP2 left gathered, so that `model`'s parameters are shards again.

    Their gradients then go to the shards. It costs one more gathering, of the last layers, in the backward pass.
    """
    from torch.distributed.fsdp import FSDPModule

    if isinstance(model, FSDPModule):
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
