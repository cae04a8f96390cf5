"""Counts the operations of a run that has ended, as a plan counts those of one that is to come."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from peft import PeftConfig
from transformers import PreTrainedConfig

from ..config.safe_sft_config import SafeSFTConfig
from ..data.subset import evenly_spread
from .compute import step_work
from .data import Rows
from .model import plan_model
from .schedule import make_schedule, step_batches
from .teacher import computed_rows

#: Rows whose tokens are counted, evenly spread.
_SAMPLE = 2048


@dataclass(frozen=True)
class RunWork:
    """The operations of a run.

    Attributes:
        parts: operations of one optimizer step on one device, by what they are for.
        steps: optimizer steps that were done.
        devices: devices that shared each step.
        notes: what was assumed.
    """

    parts: dict[str, float]
    steps: int
    devices: int
    notes: tuple[str, ...]

    @property
    def total(self) -> float:
        """All operations of the training."""
        return sum(self.parts.values()) * self.steps * self.devices


def count_run(
    args: SafeSFTConfig,
    config: PreTrainedConfig,
    adapter: PeftConfig | None,
    task: Rows,
    safety: Rows,
    *,
    steps: int,
    devices: int,
    fresh: bool,
) -> RunWork:
    """Count the operations of a run.

    Args:
        args: the run's `SafeSFTConfig`.
        config: configuration of the model that was trained.
        adapter: its adapter; None for full tuning.
        task: the rows of the task, as they were trained on.
        safety: the rows that were replayed.
        steps: optimizer steps that were done.
        devices: devices that shared each step.
        fresh: whether the adapter was new.

    Raises:
        ValueError: when the model cannot be built without its weights.
    """
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    shape = copy.deepcopy(config)
    if hasattr(shape, "quantization_config"):
        del shape.quantization_config  # what is packed is multiplied unpacked
    trained = None if adapter is None else copy.deepcopy(adapter)
    if trained is not None:
        trained.inference_mode = False
    built = plan_model(shape, dtype, quantization=None, adapter=trained)
    batches = step_batches(args, task, safety)
    schedule = replace(make_schedule(args, task, batches, devices), steps=steps)
    state_bytes = config.get_text_config().hidden_size * dtype.itemsize
    computed = computed_rows(args, schedule, safety, state_bytes, fresh)
    parts = asdict(step_work(built.runnable, args, *batches, computed))
    notes = (task.note, safety.note, "every step is counted as a full one; padding is not counted")
    return RunWork(parts, steps, devices, tuple(note for note in notes if note))


def count_tokens(rows: Sequence[Any], what: str) -> Rows:
    """Count the tokens of rows that are tokenised.

    Args:
        rows: mappings with `input_ids`, and `labels` or a mask of what is supervised.
        what: what the rows are, for the note.
    """
    sample = evenly_spread(rows, _SAMPLE)
    lengths = [(len(row["input_ids"]), _supervised(row)) for row in sample]
    note = "" if len(sample) == len(rows) else f"{what}: the tokens of {len(sample)} of {len(rows)} were counted"
    mean = len(lengths) or 1
    tokens, supervised = (sum(column) / mean for column in (zip(*lengths, strict=True) if lengths else ((), ())))
    return Rows(len(rows), tokens, max((t for t, _ in lengths), default=0), supervised, counted=not note, note=note)


def _supervised(row: Any) -> int:
    if row.get("labels") is not None:
        return sum(label != -100 for label in row["labels"])
    mask = row.get("completion_mask") or row.get("assistant_masks")
    return sum(map(bool, mask)) if mask else len(row["input_ids"])
