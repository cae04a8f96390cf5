"""The schedule is a pure function of seed, step and task rows, and spends every row before any is repeated."""

from collections import Counter

import pytest

from safe_sft.replay import ReplaySchedule, deal

TOKENS = (3, 1, 4, 1, 5, 9, 2)


def make(ratio: float = 0.25, seed: int = 0, **fields) -> ReplaySchedule:
    return ReplaySchedule(TOKENS, ratio, seed, **fields)


def dealt(rows, micro_steps: int, ranks: int) -> list[list[list[int]]]:
    return [deal(rows, micro_step, micro_steps, ranks) for micro_step in range(micro_steps)]


def test_every_row_once_before_any_twice():
    slots = [row for step in range(7) for row in make().rows(step, 32)]  # 56 slots, 7 rows
    for start in range(0, 56, 7):
        assert sorted(slots[start : start + 7]) == list(range(7))
    assert Counter(slots) == dict.fromkeys(range(7), 8)
    assert slots[:7] != slots[7:14]


def test_pure_function_of_its_arguments():
    assert make().rows(5, 16) == make().rows(5, 16)
    assert [make(seed=1).rows(step, 16) for step in range(4)] != [make().rows(step, 16) for step in range(4)]


@pytest.mark.parametrize("ratio", [0.25, 0.1, 0.6, 1.75])
@pytest.mark.parametrize("task_rows", [1, 3, 10, 16])
def test_a_step_replays_its_share_and_is_off_by_less_than_a_row(ratio, task_rows):
    counts = [len(make(ratio).rows(step, task_rows)) for step in range(200)]
    for steps in range(1, 201):
        assert abs(sum(counts[:steps]) - ratio * task_rows * steps) < 1


def test_the_rounding_is_right_on_average_over_seeds():
    counts = [len(make(seed=seed).rows(3, 1)) for seed in range(2000)]
    assert set(counts) == {0, 1}
    assert sum(counts) / 2000 == pytest.approx(0.25, abs=0.04)  # four standard errors


def test_a_token_has_its_weight_in_the_mean_of_its_step():
    rows = make().rows(4, 16)
    assert make().token_share(4, 16) == pytest.approx(1 / sum(TOKENS[row] for row in rows))
    shares = {step: make().token_share(step, 2) for step in range(6)}  # half a row a step, with twice the weight
    for step, share in shares.items():
        rows = make().rows(step, 2)
        assert share == (pytest.approx(2 / TOKENS[rows[0]]) if rows else 0)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 16])
@pytest.mark.parametrize(("micro_steps", "ranks"), [(1, 1), (4, 1), (16, 1), (1, 2), (8, 2), (3, 4)])
def test_rows_are_dealt_out_as_evenly_as_they_go(count, micro_steps, ranks):
    rows = list(range(count))
    cells = dealt(rows, micro_steps, ranks)
    assert sorted(row for micro in cells for rank in micro for row in rank) == rows
    of_ranks = [sum(len(micro[rank]) for micro in cells) for rank in range(ranks)]
    of_steps = [max(len(rank) for rank in micro) for micro in cells]
    assert max(of_ranks) - min(of_ranks) <= 1
    assert max(of_steps) - min(of_steps) <= 1


def test_four_rows_dealt_by_hand():
    assert dealt([5, 6, 7, 8], 2, 1) == [[[5, 6]], [[7, 8]]]
    assert dealt([5, 6, 7, 8], 4, 2) == [[[], []], [[5], [6]], [[], []], [[7], [8]]]
    assert dealt([5, 6, 7], 2, 2) == [[[5], [6]], [[7], []]]


def test_rows_from_the_task_take_every_second_slot_and_change_no_law():
    schedule = make(from_task=3)
    slots = [row for step in range(6) for row in schedule.rows(step, 32)]
    assert all((row >= 4) == bool(slot % 2) for slot, row in enumerate(slots))
    assert Counter(slots[1::2]) == dict.fromkeys((4, 5, 6), 8)
    for start in range(0, 24, 4):
        assert sorted(slots[::2][start : start + 4]) == [0, 1, 2, 3]
