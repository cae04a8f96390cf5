"""Replay may stop after the first tokens of an answer."""

import pytest

from safe_sft.data.tokenization import TokenizedRow
from tests.conftest import assert_same, logged, make_trainer, safety_rows, trained_weights


def test_a_row_ends_with_its_last_replayed_token():
    row = TokenizedRow([7, 8, 1, 2, 3], [-100, -100, 1, 2, 3])
    assert row.beginning(2) == TokenizedRow([7, 8, 1, 2], [-100, -100, 1, 2])
    assert row.beginning(3) is row
    assert row.beginning(None) is row
    assert TokenizedRow([1, 2, 3], [1, 2, 3]).beginning(1) == TokenizedRow(
        [1, 2], [1, 2]
    )  # the first is not predicted
    gap = TokenizedRow([1, 2, 3, 4, 5], [-100, 2, -100, 4, 5])
    assert gap.beginning(2) == TokenizedRow([1, 2, 3, 4], [-100, 2, -100, 4])


@pytest.mark.parametrize("method", ["er", "der", "der++"])
def test_it_equals_replay_of_rows_that_were_cut_before(tmp_path, method):
    cut = make_trainer(tmp_path, method, replay_max_answer_tokens=4)
    by_hand = make_trainer(tmp_path, method, safety=[{**row, "completion": "No, "} for row in safety_rows()])
    by_hand._states._rows[:] = [row.beginning(4) for row in by_hand._states._rows]
    assert [row.supervised_tokens for row in cut._states._rows] == [4] * 6
    assert [row.input_ids for row in cut._states._rows] == [row.input_ids for row in by_hand._states._rows]
    cut.train()
    assert logged(cut, "safety_loss")
    longer = make_trainer(tmp_path, method, replay_max_answer_tokens=999)
    plain = make_trainer(tmp_path, method, replay_max_answer_tokens=None)
    for trainer in (longer, plain):
        trainer.train()
    assert_same(trained_weights(longer), trained_weights(plain))
