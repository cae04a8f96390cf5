"""Decides which safety row is replayed when, by pure functions, so that nothing is lost on resume."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@lru_cache(maxsize=8)
def _order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(rows))
    random.Random(f"replay-{seed}-{epoch}").shuffle(order)
    return tuple(order)


@lru_cache(maxsize=8)
def _offset(seed: int) -> float:
    return random.Random(f"replay-{seed}").random()


def in_turn(slot: int, rows: int, seed: int) -> int:
    """Return the row of a slot: each of `rows` rows comes once before any twice, in a new order each time round."""
    epoch, position = divmod(slot, rows)
    return _order(rows, seed, epoch)[position]


@dataclass(frozen=True)
class ReplaySchedule:
    """The replayed rows of each optimizer step, over all micro-steps and ranks.

    They depend on the seed, the step and the number of its task rows alone, not on how the step is split. Steps of
    equal size replay every row once before any twice, in a new order each time round.

    A step of `n` task rows replays `ratio · n` rows, rounded up or down so that the sum over steps of equal size is
    never off by a row: for two task rows and a ratio of 0.25, every second step replays one.

    Where some rows come from the task, every second slot replays one of these, and the others the rest.

    Attributes:
        supervised_tokens: number of supervised tokens of each row.
        ratio: replayed rows for each task row.
        seed: seed of the order and of the rounding.
        from_task: how many rows, the last ones, come from the task.
    """

    supervised_tokens: tuple[int, ...]
    ratio: float
    seed: int
    from_task: int = 0

    def rows(self, step: int, task_rows: int) -> list[int]:
        """Return the indices of the rows that are replayed in optimizer step `step` (from 0) of `task_rows` rows."""
        share, offset = self.ratio * task_rows, _offset(self.seed)
        first, end = (math.floor(offset + share * turn) for turn in (step, step + 1))
        return [self._row(slot) for slot in range(first, end)]

    def token_share(self, step: int, task_rows: int) -> float:
        """Return the weight of one replayed token in the step's mean over its replayed tokens.

        Where a step has so few task rows that only some steps replay a row, these count for the others, too: for a
        row in every fourth step, four times. The term so has its weight on average, whatever the size of a step.
        """
        tokens = sum(self.supervised_tokens[row] for row in self.rows(step, task_rows))
        return 0.0 if tokens == 0 else 1 / (tokens * min(1.0, self.ratio * task_rows))

    def _row(self, slot: int) -> int:
        rows, given = len(self.supervised_tokens), len(self.supervised_tokens) - self.from_task
        if not self.from_task or not given:
            return in_turn(slot, rows, self.seed)
        turn, of_task = divmod(slot, 2)
        return given + in_turn(turn, self.from_task, self.seed) if of_task else in_turn(turn, given, self.seed)


def deal(rows: Sequence[int], micro_step: int, micro_steps: int, ranks: int) -> list[list[int]]:
    """Deal the rows of an optimizer step out, as evenly as they go, and return those of one micro-step.

    Args:
        rows: the rows of the step.
        micro_step: index of the micro-step, from 0.
        micro_steps: number of micro-steps of the step.
        ranks: number of ranks.

    Returns:
        For each rank, its rows in this micro-step; some ranks may have none.
    """
    turns = -(-len(rows) // ranks)
    first, end = (turns * index // micro_steps * ranks for index in (micro_step, micro_step + 1))
    return [list(rows[first + rank : end : ranks]) for rank in range(ranks)]
