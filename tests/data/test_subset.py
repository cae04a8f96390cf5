"""A part of some rows that stands for all of them."""

import pytest
from datasets import Dataset

from safe_sft.data.forms import as_messages, make_row
from safe_sft.data.subset import evenly_spread


@pytest.mark.parametrize(
    ("count", "size", "kept"),
    [(10, 4, [0, 2, 5, 7]), (3, None, [0, 1, 2]), (3, 9, [0, 1, 2]), (5, 1, [0]), (0, 4, []), (0, None, [])],
)
def test_a_subset_is_in_order_and_evenly_spread(count, size, kept):
    assert evenly_spread(range(count), size) == kept


def test_rows_of_a_data_set_are_rows():
    rows = Dataset.from_list([{"a": i} for i in range(4)])
    assert evenly_spread(rows, 2) == [{"a": 0}, {"a": 2}]


def test_messages_keep_what_else_they_say_and_rows_that_are_written_do_not():
    turns = [{"role": "user", "content": "a", "name": "Ada"}]
    assert as_messages(turns) == turns
    assert as_messages("b", role="assistant") == [{"role": "assistant", "content": "b"}]
    assert make_row("chat", turns, "c")["prompt"] == [{"role": "user", "content": "a"}]
