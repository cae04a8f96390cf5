"""Decides which safety row is replayed when, by a pure function, so that nothing is lost on resume."""

import random
from dataclasses import dataclass
from functools import lru_cache


@lru_cache(maxsize=8)
def _order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(rows))
    random.Random(f"replay-{seed}-{epoch}").shuffle(order)
    return tuple(order)


@dataclass(frozen=True)
class ReplaySchedule:
    """The replayed rows of each (optimizer step, micro-step, rank), and the token count of each step.

    Every row is replayed once before any is replayed twice, in a new order each time round. The rows of a step depend
    on the step and on the product `rows_per_device · micro_steps · world_size` alone, not on how it is split.

    Where some rows come from the task, every second slot replays one of these, and the others the rest.

    Attributes:
        supervised_tokens: number of supervised tokens of each row.
        rows_per_device: rows of one micro-step on one rank.
        micro_steps: `gradient_accumulation_steps`.
        world_size: number of ranks.
        seed: seed of the order.
        from_task: how many rows, the last ones, come from the task.
    """

    supervised_tokens: tuple[int, ...]
    rows_per_device: int
    micro_steps: int
    world_size: int
    seed: int
    from_task: int = 0

    def rows(self, step: int, micro_step: int, rank: int) -> list[int]:
        """Return the indices of the rows that `rank` replays in `micro_step` of optimizer step `step` (all from 0)."""
        first = ((step * self.micro_steps + micro_step) * self.world_size + rank) * self.rows_per_device
        return [self._row(slot) for slot in range(first, first + self.rows_per_device)]

    def tokens(self, step: int, micro_steps: int) -> int:
        """Count the supervised replayed tokens of a step over all ranks.

        Args:
            step: index of the optimizer step.
            micro_steps: number of micro-steps that it really has: the last step of an epoch can have fewer.
        """
        per_step = self.micro_steps * self.world_size * self.rows_per_device
        first = step * per_step
        count = micro_steps * self.world_size * self.rows_per_device
        return sum(self.supervised_tokens[self._row(slot)] for slot in range(first, first + count))

    def _row(self, slot: int) -> int:
        rows, given = len(self.supervised_tokens), len(self.supervised_tokens) - self.from_task
        if not self.from_task or not given:
            return self._in_turn(slot, rows)
        turn, of_task = divmod(slot, 2)
        return given + self._in_turn(turn, self.from_task) if of_task else self._in_turn(turn, given)

    def _in_turn(self, slot: int, rows: int) -> int:
        epoch, position = divmod(slot, rows)
        return _order(rows, self.seed, epoch)[position]
