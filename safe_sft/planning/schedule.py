"""How many rows, tokens and steps a run has."""

import math
from dataclasses import dataclass

from ..config.safe_sft_config import SafeSFTConfig
from ..replay.alternation import alternated_steps
from .compute import Batch
from .data import Rows


@dataclass(frozen=True)
class Schedule:
    """How many rows, tokens and steps a run has.

    Attributes:
        task_rows: task rows of one optimizer step, over all devices.
        replay_rows: mean number of safety rows of one optimizer step, over all devices.
        task_tokens: mean number of tokens of the task rows of a step.
        replay_tokens: mean number of tokens of the safety rows of a step.
        steps: optimizer steps of the run; None when the data is not available.
        devices: number of devices that share a step.
    """

    task_rows: int
    replay_rows: float
    task_tokens: float
    replay_tokens: float
    steps: int | None
    devices: int

    @property
    def replay_row_share(self) -> float:
        """Share of safety rows among the rows of a step."""
        return self.replay_rows / (self.task_rows + self.replay_rows)

    @property
    def replay_token_share(self) -> float:
        """Share of safety tokens among the tokens of a step."""
        return self.replay_tokens / (self.task_tokens + self.replay_tokens)


def most_replayed(args: SafeSFTConfig) -> int:
    """Return the most safety rows of one micro-step on one device; 0 when nothing is replayed beside the task."""
    beside = any(method.needs_replay and not method.projects for method, _ in args.safety_terms)
    return math.ceil(round(_ratio(args) * args.per_device_train_batch_size, 9)) if beside else 0


def most_replayed_apart(args: SafeSFTConfig) -> int:
    """Return the most safety rows that run at a time when a step is projected; 0 when none is."""
    rows = args.per_device_train_batch_size
    projects = any(method.projects for method, _ in args.safety_terms)
    return min(rows, math.ceil(round(_ratio(args) * rows * args.gradient_accumulation_steps, 9))) if projects else 0


def _ratio(args: SafeSFTConfig) -> float:
    return args.replay_ratio if any(method.needs_replay for method, _ in args.safety_terms) else 0.0


def step_batches(args: SafeSFTConfig, task: Rows, safety: Rows) -> tuple[Batch, Batch]:
    """Return the task rows and the replayed rows of one optimizer step on one device."""
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return (
        Batch(rows, task.tokens, task.supervised),
        Batch(_ratio(args) * rows, safety.tokens, safety.supervised),
    )


def make_schedule(args: SafeSFTConfig, task: Rows, batches: tuple[Batch, Batch], devices: int) -> Schedule:
    """Compute the schedule of a run.

    Args:
        args: the run's `SafeSFTConfig`.
        task: the rows of the task.
        batches: task rows and replayed rows of one device in a step, from `step_batches`.
        devices: number of devices that share a step.
    """
    task_rows, replay_rows = (batch.rows * devices for batch in batches)
    return Schedule(
        task_rows=round(task_rows),
        replay_rows=replay_rows,
        task_tokens=task_rows * batches[0].tokens,
        replay_tokens=replay_rows * batches[1].tokens,
        steps=_steps(args, task, devices),
        devices=devices,
    )


def _steps(args: SafeSFTConfig, task: Rows, devices: int) -> int | None:
    if args.max_steps > 0:
        return args.max_steps
    if task.rows is None:
        return None
    batches = math.ceil(task.rows / (args.per_device_train_batch_size * devices))
    steps = math.ceil(batches / args.gradient_accumulation_steps)
    if any(method.alternates for method, _ in args.safety_terms):
        steps = alternated_steps(steps, args.lisa_safety_steps, args.lisa_task_steps)
    return math.ceil(steps * args.num_train_epochs)
