"""Decides, for Lisa, which optimizer steps train on safety rows and which on the task, by pure functions."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from .schedule import in_turn


def alternated_steps(task_steps: int, safety: int, task: int) -> int:
    """Return the steps of an epoch with `task_steps` steps of the task: `safety` others come before every `task`."""
    return task_steps + safety * math.ceil(task_steps / task)


@dataclass(frozen=True)
class Alternation:
    """The rows of each optimizer step, over all micro-steps and ranks: of the safety set, or of the task.

    They depend on the seed and the step alone, not on how the step is split. An epoch has every task row once, in a
    new order each time. The safety rows go round and round, each once before any twice.

    Attributes:
        task_rows: number of rows of the task; in the joined data set they come first.
        safety_rows: number of safety rows.
        rows_per_step: rows of an optimizer step, over all micro-steps and ranks.
        safety_steps: steps on safety rows, which come first.
        task_steps: steps on the task before the next ones on safety rows.
        seed: seed of the orders.
        together: number of rows of which a step's must be a multiple, so that every rank has equally many.
    """

    task_rows: int
    safety_rows: int
    rows_per_step: int
    safety_steps: int
    task_steps: int
    seed: int
    together: int = 1

    @property
    def steps(self) -> int:
        """Number of optimizer steps of an epoch."""
        return alternated_steps(math.ceil(self.task_rows / self.rows_per_step), self.safety_steps, self.task_steps)

    @property
    def rows_per_epoch(self) -> int:
        """Number of rows of an epoch, with those that come again so that every rank has equally many."""
        task_steps = math.ceil(self.task_rows / self.rows_per_step)
        return self.task_rows + -self.task_rows % self.together + (self.steps - task_steps) * self.rows_per_step

    def is_safety(self, step: int) -> bool:
        """Whether optimizer step `step` (from 0, over all epochs) trains on safety rows."""
        return step % self.steps % (self.safety_steps + self.task_steps) < self.safety_steps

    def rows(self, epoch: int) -> list[int]:
        """Return the indices into the joined data set of the rows of an epoch, in order.

        The last step of an epoch may have fewer rows; where ranks need more, the epoch's first task rows come again.
        """
        generator = torch.Generator().manual_seed((self.seed << 20) + epoch)
        task = torch.randperm(self.task_rows, generator=generator).tolist()
        task += task[: -len(task) % self.together]
        found, done, size = [], 0, self.rows_per_step
        slot = epoch * (self.rows_per_epoch - len(task))
        for step in range(self.steps):
            if self.is_safety(step):
                turns = range(slot, slot + size)
                found += [self.task_rows + in_turn(turn, self.safety_rows, self.seed) for turn in turns]
                slot += size
            else:
                found += task[done : done + size]
                done += size
        return found


class AlternatingSampler(Sampler[int]):
    """The rows of an epoch, as `Alternation` orders them.

    Args:
        alternation: the order.
        step: function that returns how many optimizer steps have been taken; the epoch follows from it.
    """

    def __init__(self, alternation: Alternation, step: Callable[[], int]):
        self._alternation, self._step = alternation, step

    def __len__(self) -> int:
        return self._alternation.rows_per_epoch

    def __iter__(self) -> Iterator[int]:
        return iter(self._alternation.rows(self._step() // self._alternation.steps))
