"""The schedule is a pure function that spends every row before any is repeated."""

from collections import Counter

import pytest

from safe_sft.replay import ReplaySchedule

TOKENS = (3, 1, 4, 1, 5, 9, 2)


def make(rows: int = 2, micro_steps: int = 2, world: int = 2, seed: int = 0) -> ReplaySchedule:
    return ReplaySchedule(TOKENS, rows, micro_steps, world, seed)


def of_step(schedule: ReplaySchedule, step: int) -> list[int]:
    return [
        row
        for micro in range(schedule.micro_steps)
        for rank in range(schedule.world_size)
        for row in schedule.rows(step, micro, rank)
    ]


@pytest.mark.parametrize("split", [(8, 1, 1), (2, 4, 1), (4, 1, 2), (1, 4, 2)])
def test_a_step_has_the_same_rows_however_it_is_split(split):
    for step in (0, 3, 50):
        assert sorted(of_step(make(*split), step)) == sorted(of_step(make(), step))


def test_every_row_once_before_any_twice():
    slots = [row for step in range(7) for row in of_step(make(), step)]  # 56 slots, 7 rows
    for start in range(0, 56, 7):
        assert sorted(slots[start : start + 7]) == list(range(7))
    assert Counter(slots) == dict.fromkeys(range(7), 8)
    assert slots[:7] != slots[7:14]


def test_pure_function_of_its_arguments():
    assert make().rows(5, 1, 0) == make().rows(5, 1, 0)
    assert [make(seed=1).rows(step, 0, 0) for step in range(4)] != [make().rows(step, 0, 0) for step in range(4)]


def test_tokens_of_a_step_and_of_a_shorter_one():
    schedule = make()
    assert schedule.tokens(4, 2) == sum(TOKENS[row] for row in of_step(schedule, 4))
    assert schedule.tokens(4, 1) == sum(TOKENS[row] for rank in (0, 1) for row in schedule.rows(4, 0, rank))


def test_rows_from_the_task_take_every_second_slot_and_change_no_law():
    schedule = ReplaySchedule(TOKENS, 2, 2, 2, 0, from_task=3)
    slots = [row for step in range(6) for row in of_step(schedule, step)]
    assert all((row >= 4) == bool(slot % 2) for slot, row in enumerate(slots))
    assert Counter(slots[1::2]) == dict.fromkeys((4, 5, 6), 8)
    for start in range(0, 24, 4):
        assert sorted(slots[::2][start : start + 4]) == [0, 1, 2, 3]
    other = ReplaySchedule(TOKENS, 8, 1, 1, 0, from_task=3)
    for step in (0, 5):
        assert sorted(of_step(other, step)) == sorted(of_step(schedule, step))
        assert schedule.tokens(step, 2) == sum(TOKENS[row] for row in of_step(schedule, step))
