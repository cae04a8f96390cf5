"""States that a model is in for a while: on a device, checkpointed, without dropout."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, a model that was left on the CPU is on `device`.

    Before training, `Trainer` leaves there what FSDP or DeepSpeed will move.
    """
    at_home = next(model.parameters()).device.type != "cpu" or device.type == "cpu"
    if not at_home:
        model.to(device)
    try:
        yield
    finally:
        if not at_home:
            model.to("cpu")


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Inside, the layers keep their inputs alone and run again in the backward pass, in eval mode as well.

    The checkpointing of `transformers` is for training mode, in which a layer may have dropout of its own.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    own = [vars(layer).get("forward") for layer in layers]  # set by accelerate where a model is split over devices
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Inference behaviour, except for quantised layers, which run in training mode.

    On CPU, bitsandbytes repacks 4-bit weights at the first forward in eval mode, and training then raises.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = type(module).__module__.startswith("bitsandbytes.")
        yield
    finally:
        for module, training in modes:
            module.training = training
