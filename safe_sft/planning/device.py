"""Lists what one device holds in a run, and its peak."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..replay import ReplayBatch, joining_is_cheaper
from .activations import Activations, count_activations
from .data import Rows
from .memory import GRADIENTS, Item, model_items, safety_items, step_memory
from .model import ModelPlan
from .schedule import most_replayed, most_replayed_apart


class DeviceMemory(NamedTuple):
    """The memory of one device.

    Attributes:
        items: what the device holds, and what is kept elsewhere because of it.
        peak: most bytes in use at a time.
        state_bytes: bytes of the last hidden state of one token.
    """

    items: tuple[Item, ...]
    peak: int
    state_bytes: int


def device_memory(built: ModelPlan, args: SafeSFTConfig, task: Rows, safety: Rows, *, fresh: bool) -> DeviceMemory:
    """Compute what one device holds.

    Args:
        built: plan of the model that is trained.
        args: the run's `SafeSFTConfig`.
        task: the rows of the task.
        safety: the rows to replay.
        fresh: whether the adapter is new.
    """
    activations, tokens = _activations(built, args, task, safety)
    supervised = min(task.supervised * task.longest / task.tokens, task.longest)
    static = [*model_items(built, args), *safety_items(built, args, fresh, activations.state_bytes, safety)]
    step = step_memory(built, activations, args, tokens, math.ceil(args.per_device_train_batch_size * supervised))
    always = sum(item.size for item in static if item.where == "device" and item.name != GRADIENTS)
    peak = step.peak(always, built.trainable_bytes)
    return DeviceMemory((*static, *step.items()), peak, activations.state_bytes)


def _activations(built: ModelPlan, args: SafeSFTConfig, task: Rows, safety: Rows) -> tuple[Activations, int]:
    """Return the activations of the longest pass of a step, and its number of tokens with padding.

    It is a batch of task rows, with the rows that are replayed beside them, or, where the step is projected, of safety
    rows alone: these run when the activations of the task rows are gone.
    """
    autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    count = partial(count_activations, built.runnable, autocast=autocast, checkpointing=args.gradient_checkpointing)
    passes = [_micro_step(count, args, task, safety)]
    if apart := most_replayed_apart(args):
        passes.append((count(apart, safety.longest), apart * safety.longest))
    return max(passes, key=lambda one: one[1])


def _micro_step(
    count: Callable[[int, int], Activations], args: SafeSFTConfig, task: Rows, safety: Rows
) -> tuple[Activations, int]:
    rows, replayed = args.per_device_train_batch_size, most_replayed(args)
    if not replayed:
        return count(rows, task.longest), rows * task.longest
    row = TokenizedRow([0] * safety.longest, [0] * safety.longest)
    replay = ReplayBatch.of([row], [0] * replayed, torch.device("cpu"))
    if joining_is_cheaper((rows, task.longest), replay, "cpu" if args.use_cpu else "cuda"):
        width = max(task.longest, safety.longest)
        return count(rows + replayed, width), (rows + replayed) * width
    ours, theirs = count(rows, task.longest), count(replayed, safety.longest)
    both = replace(
        ours,
        kept=ours.kept + theirs.kept,
        checkpoints=ours.checkpoints + theirs.checkpoints,
        largest_layer=max(ours.largest_layer, theirs.largest_layer),
    )
    return both, max(rows * task.longest, replayed * safety.longest)
