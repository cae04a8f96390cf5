"""Contexts that put a model into a temporary state: on a device, checkpointed, without dropout."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move a model that was left on the CPU to `device` inside this context.

    Before training, `Trainer` leaves on the CPU what FSDP or DeepSpeed will move.
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
    """Checkpoint the layers inside this context: they keep only their inputs, and run again in the backward pass.

    This works in eval mode, too; that of `transformers` needs training mode, in which a layer may have dropout.
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
    """Put the model into eval mode inside this context, except quantised layers, which stay in training mode.

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
