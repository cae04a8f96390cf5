"""The task rows of a step are counted before its first micro-step, in every layout of a batch."""

import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from safe_sft.trainer.micro_steps import MICRO_STEP, MicroStep, task_rows
from tests.conftest import logged, make_trainer

EXAMPLES = [{"input_ids": [1] * length, "labels": [1] * length} for length in (5, 2, 7)]


@pytest.mark.parametrize(
    ("collator", "examples", "rows"),
    [
        ({}, EXAMPLES, 3),
        ({"padding_free": True}, EXAMPLES, 3),
        ({"padding_free": True, "pad_to_multiple_of": 8}, EXAMPLES, 3),
        (
            {"padding_free": True},
            [{**EXAMPLES[0], "seq_lengths": [3, 2]}, {**EXAMPLES[2], "seq_lengths": [2, 2, 3]}],
            5,
        ),
        ({"return_position_ids": True}, EXAMPLES, 3),
    ],
    ids=["padded", "padding-free", "padded at the end", "packed", "padded, with positions"],
)
def test_rows_of_a_batch(collator, examples, rows):
    assert int(task_rows(DataCollatorForLanguageModeling(pad_token_id=0, **collator)(examples))) == rows


def test_images_count_by_their_rows():
    assert task_rows({"input_ids": torch.ones(3, 9), "pixel_values": torch.ones(1)}) == 3


def test_a_batch_knows_its_place_and_the_rows_of_its_step(tmp_path):
    trainer = make_trainer(tmp_path, "er", per_device_train_batch_size=3)
    batches = iter(trainer.get_train_dataloader())  # 16 rows: the sixth batch has one
    for _ in range(4):
        next(batches)
    marked, _ = trainer.get_batch_samples(batches, 4, torch.device("cpu"))
    assert [batch[MICRO_STEP] for batch in marked] == [MicroStep(0, 0, 2, 4), MicroStep(0, 1, 2, 4)]


def test_packed_rows_replay_by_their_examples(tmp_path):
    trainer = make_trainer(tmp_path, "er", packing=True, max_length=64, per_device_train_batch_size=2, max_steps=2)
    batch = next(iter(trainer.get_train_dataloader()))
    rows = int(task_rows(batch))
    assert rows > 4  # two packed rows hold several examples each
    marked, _ = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    replay = trainer._states.replay_batch(marked[0][MICRO_STEP])
    assert abs(len(replay.rows) - rows / 4) < 1
    trainer.train()
    assert min(logged(trainer, "safety/er")) > 0
