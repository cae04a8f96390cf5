"""Parameters that are cut up: by FSDP2, where each rank holds and penalises its own part, and by DeepSpeed ZeRO-3."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor


def settle(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor` on the device of `parameter`, cut as it is cut.

    A tensor that is not sharded yet is dealt out by rank 0, once: the other ranks may not have loaded the weights
    (`fsdp_cpu_ram_efficient_loading`).
    """
    if isinstance(tensor, DTensor) or not isinstance(parameter, DTensor):
        return tensor if tensor.device == parameter.device else tensor.to(parameter.device)
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def settle_whole(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor` on the device of `parameter`, whole, and equal on every rank that holds a part of `parameter`."""
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        return distribute_tensor(tensor.to(parameter.device), mesh, [Replicate()] * mesh.ndim).to_local()
    return tensor if tensor.device == parameter.device else tensor.to(parameter.device)


def local(tensor: Tensor) -> Tensor:
    """This rank's part, with gradient."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, with gradient; under ZeRO-3 without, and as long-lived as what is returned."""
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
    """Inside, `parameters` are whole where DeepSpeed ZeRO-3 empties them between uses; elsewhere it does nothing.

    Every rank must enter it, with the same parameters, and none may change them.
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
    """The sum of every rank's `part` of a quantity of `sharded`, whose gradient is that of this rank's `part` alone.

    That is what a shard needs: its gradient is not averaged over ranks, as that of a whole parameter is.
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
