"""Replayed rows ride along unseen: the same states as alone, and nothing left for the head."""

import pytest
import torch

from safe_sft.data import TokenizedRow
from safe_sft.models.parts import backbone
from safe_sft.replay import HiddenStateTap, ReplayBatch, joining_is_cheaper
from safe_sft.replay.joint import batch_layout
from tests.conftest import make_model

ROWS = [TokenizedRow([1, 10, 11, 12, 13], [-100, -100, -100, 12, 13]), TokenizedRow([1, 20, 21], [-100, 20, 21])]
#: last hidden states that predict 12, 13 (row 0: positions 2, 3) and 20, 21 (row 1: positions 0, 1)
PREDICTORS = ((0, 2), (0, 3), (1, 0), (1, 1))


@pytest.fixture
def batch() -> ReplayBatch:
    return ReplayBatch.of(ROWS, [0, 1], torch.device("cpu"))


def padded_task(lengths=(7, 4)) -> dict[str, torch.Tensor]:
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.arange(30, 30 + length)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def flattened_task() -> dict:
    cu = torch.tensor([0, 4, 6], dtype=torch.int32)
    return {
        "input_ids": torch.tensor([[30, 31, 32, 33, 40, 41]]),
        "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1]]),
        "cu_seq_lens_q": cu,
        "cu_seq_lens_k": cu,
        "max_length_q": 4,
        "max_length_k": 4,
        "seq_idx": torch.tensor([[0, 0, 0, 0, 1, 1]], dtype=torch.int32),
    }


def test_targets_and_predictors_by_hand(batch):
    assert batch.targets.tolist() == [12, 13, 20, 21]
    assert batch.predictors == PREDICTORS
    assert batch.padded_index(5).tolist() == [2, 3, 5, 6]
    assert batch.flattened_index().tolist() == [2, 3, 5, 6]
    assert (batch.width, batch.tokens) == (5, 8)


@pytest.mark.parametrize("task", [padded_task((7, 4)), padded_task((3, 2)), flattened_task()])
def test_joined_states_are_those_of_each_alone(batch, task):
    model = make_model(attn_implementation="sdpa")
    with torch.no_grad():
        task_logits = model(**task, use_cache=False).logits
        alone = torch.stack(
            [model.model(input_ids=batch.input_ids[row][None]).last_hidden_state[0, p] for row, p in PREDICTORS]
        )
        tap = HiddenStateTap(backbone(model), pad_token_id=0)
        with tap.listening(batch, task=True):
            joined_logits = model(**task, use_cache=False).logits
        hidden, task_hidden = tap.replay_hidden(), tap.task_hidden()
    valid = task["attention_mask"].bool() if "attention_mask" in task else torch.ones_like(task["input_ids"]).bool()
    assert joined_logits.shape == task_logits.shape
    torch.testing.assert_close(joined_logits[valid], task_logits[valid])
    torch.testing.assert_close(hidden, alone)
    torch.testing.assert_close(tap.forward_rows(model, batch), alone)
    torch.testing.assert_close(model.lm_head(task_hidden)[valid], task_logits[valid])


def test_a_tap_without_replay_changes_nothing(batch):
    model = make_model()
    task = padded_task()
    with torch.no_grad():
        before = model(**task, use_cache=False).logits
        tap = HiddenStateTap(backbone(model), pad_token_id=0)
        assert torch.equal(model(**task, use_cache=False).logits, before)
        with pytest.raises(RuntimeError, match="No forward ran"):
            tap.replay_hidden()


def test_flattened_boundaries_are_extended(batch):
    tap = HiddenStateTap(torch.nn.Identity(), pad_token_id=0)
    joined = tap._append_flattened(flattened_task(), batch)
    assert joined["cu_seq_lens_q"].tolist() == [0, 4, 6, 11, 14]
    assert joined["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 0, 1, 2]]
    assert joined["seq_idx"].tolist() == [[0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3]]
    assert joined["max_length_k"] == 5


def test_layouts():
    assert batch_layout(padded_task()) == "padded"
    assert batch_layout(flattened_task()) == "flattened"
    assert batch_layout({**padded_task(), "pixel_values": torch.zeros(1)}) is None
    assert batch_layout({**padded_task(), "attention_mask": torch.ones(2, 1, 7, 7)}) is None


def test_two_forwards_where_padding_would_cost_more(batch):
    long = ReplayBatch.of([TokenizedRow([1] * 190, [1] * 190)] * 4, range(4), torch.device("cpu"))
    assert not joining_is_cheaper((16, 30), long, "cpu")  # 20 · 190 = 3800 against 480 + 760
    assert joining_is_cheaper((16, 190), long, "cpu")
    assert joining_is_cheaper((12, 189), long, "cpu")  # 3040 against 2268 + 760 and the 13 of a second forward
    assert not joining_is_cheaper((14, 189), long, "cpu")  # 3420 against 2646 + 760 and 13


def test_a_second_forward_costs_more_where_kernels_are_launched():
    long = ReplayBatch.of([TokenizedRow([1] * 190, [1] * 190)] * 4, range(4), torch.device("cpu"))
    assert joining_is_cheaper((16, 184), long, "cuda")  # 3800 against 2944 + 760 and 128
    assert not joining_is_cheaper((16, 181), long, "cuda")
