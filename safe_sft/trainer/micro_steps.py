"""The place of each micro-batch in its optimizer step, and how many task rows that step has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

#: The key of a batch's `MicroStep` in it.
MICRO_STEP = "safety_micro_step"


@dataclass(frozen=True)
class MicroStep:
    """The place of a batch: micro-step `index` (from 0) of `count`, in optimizer step `step` (from 0).

    Attributes:
        step: index of the optimizer step.
        index: index of the micro-step in it.
        count: number of its micro-steps.
        task_rows: number of task rows of the optimizer step, over all micro-steps and ranks; 0 where nothing asks.
    """

    step: int
    index: int
    count: int
    task_rows: int = 0


def mark_micro_steps(
    batches: Sequence[dict[str, Any]], step: int, accelerator: Accelerator, *, count_rows: bool
) -> None:
    """Write into each of this rank's batches of an optimizer step its place in it.

    Args:
        batches: the batches, in order.
        step: index of the optimizer step.
        accelerator: the trainer's accelerator.
        count_rows: whether to count the step's task rows, for which ranks add up one number; every rank must ask.
    """
    rows = _over_ranks(sum(task_rows(batch) for batch in batches), accelerator) if count_rows else 0
    for index, batch in enumerate(batches):
        batch[MICRO_STEP] = MicroStep(step, index, len(batches), rows)


def task_rows(batch: Mapping[str, Any]) -> int | Tensor:
    """Count the rows of a task batch; of a flattened one (packed or padding-free) the examples in it.

    An example of a single token, which teaches nothing, is not told from padding there, and not counted.
    """
    positions = batch.get("position_ids")
    if positions is None or batch.get("attention_mask") is not None or positions.dim() != 2:
        return int(batch["input_ids"].size(0))
    return ((positions[:, :-1] == 0) & (positions[:, 1:] == 1)).sum()


def _over_ranks(rows: int | Tensor, accelerator: Accelerator) -> int:
    if accelerator.num_processes > 1:
        rows = accelerator.reduce(torch.as_tensor(rows, device=accelerator.device), "sum")
    return int(rows)
