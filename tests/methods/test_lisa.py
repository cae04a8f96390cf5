"""Lisa: which rows a step trains on, where it is anchored, and the laws of splitting and resuming."""

import pytest
import torch
from datasets import Dataset
from trl import SFTTrainer

from safe_sft.replay.alternation import Alternation, alternated_steps
from tests.conftest import assert_same, lora, make_trainer, trained_weights

SHORT = {"lisa_safety_steps": 1, "lisa_task_steps": 2, "max_steps": -1, "num_train_epochs": 2}


def test_an_epoch_has_every_task_row_once_and_safety_rows_in_turn():
    order = Alternation(task_rows=10, safety_rows=3, rows_per_step=4, safety_steps=1, task_steps=2, seed=0)
    assert order.steps == alternated_steps(3, 1, 2) == 5
    assert [order.is_safety(step) for step in range(7)] == [True, False, False, True, False, True, False]
    epochs = [order.rows(epoch) for epoch in range(2)]
    assert order.rows_per_epoch == len(epochs[0]) == 18
    task = [[row for row in rows if row < 10] for rows in epochs]
    assert sorted(task[0]) == sorted(task[1]) == list(range(10))
    assert task[0] != task[1]
    safety = [row - 10 for rows in epochs for row in rows if row >= 10]
    assert len(safety) == 16
    assert all(set(safety[turn : turn + 3]) == {0, 1, 2} for turn in range(0, 15, 3))
    assert all(row >= 10 for row in epochs[0][:4])
    assert all(row < 10 for row in epochs[0][4:12])


def test_ranks_get_equally_many_task_rows():
    order = Alternation(10, 3, rows_per_step=8, safety_steps=1, task_steps=9, seed=0, together=4)
    task = [row for row in order.rows(0) if row < 10]
    assert len(task) == 12
    assert order.rows_per_epoch == len(order.rows(0)) == len(order.rows(1)) == 20
    assert task[10:] == task[:2]


def test_states_are_logged_apart_and_anchored_where_the_other_ended(tmp_path):
    trainer = make_trainer(tmp_path, "lisa", **SHORT)
    trainer.train()
    steps = [log for log in trainer.state.log_history if "loss" in log]
    assert len(steps) == 2 * alternated_steps(4, 1, 2)
    assert ["safety/rows_loss" in log for log in steps[:6]] == [True, False, False, True, False, False]
    assert all(("task_loss" in log) != ("safety/rows_loss" in log) for log in steps)
    penalties = [log["safety/lisa"] for log in steps[:6]]
    # A state begins where the other ended, and moves from there.
    assert penalties[0] == penalties[1] == penalties[3] == penalties[4] == 0
    assert penalties[2] > 0


def test_the_penalty_is_the_distance_from_the_other_state(tmp_path):
    trainer = make_trainer(tmp_path, "lisa", lisa_safety_steps=1, lisa_task_steps=2, max_steps=1, learning_rate=0.1)
    trainer.train()
    (method,) = trainer._methods
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for p in trainer.model.parameters():
            if p.requires_grad:
                p.add_(0.01 * torch.randn_like(p))
    now = dict(trainer.model.named_parameters())
    moved, size = 0.0, 0.0
    for name in before:
        if ".lora_A." in name:
            other = name.replace(".lora_A.", ".lora_B.")
            layer = trainer.model.get_submodule(name.partition(".lora_A.")[0])
            moved += (2.0 * (now[other] @ now[name] - before[other] @ before[name])).square().sum().item()
            size += layer.base_layer.weight.square().sum().item()
    assert method.penalty().item() == pytest.approx(moved / size, rel=1e-4)


@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
def test_zero_weight_equals_plain_sft_on_the_same_rows_bit_for_bit(tmp_path, peft):
    settings = {"lisa_safety_steps": 1, "lisa_task_steps": 2, "max_steps": -1, "num_train_epochs": 1, "peft": peft}
    ours = make_trainer(tmp_path, "lisa", safety_weight=0.0, **settings)
    safety = [{"input_ids": row.input_ids, "labels": row.labels} for row in ours._tokenized_rows()]
    rows = [*ours.train_dataset.select_columns(["input_ids", "labels"]), *safety]
    ours.train()
    order = ours._methods[0].alternation.rows(0)
    plain = make_trainer(
        tmp_path,
        cls=SFTTrainer,
        train=Dataset.from_list([rows[row] for row in order]),
        train_sampling_strategy="sequential",
        **{name: value for name, value in settings.items() if not name.startswith("lisa")},
    )
    plain.train()
    assert_same(trained_weights(ours), trained_weights(plain))


@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_gradient_checkpointing_does_not_change_the_weights(tmp_path, reentrant):
    plain, checkpointed = (
        make_trainer(
            tmp_path,
            "lisa",
            **SHORT,
            gradient_checkpointing=on,
            gradient_checkpointing_kwargs={"use_reentrant": reentrant} if on else None,
        )
        for on in (False, True)
    )
    for trainer in (plain, checkpointed):
        trainer.train()
    for name, value in trained_weights(checkpointed).items():
        torch.testing.assert_close(value, trained_weights(plain)[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, peft):
    settings = {**SHORT, "save_strategy": "steps", "save_steps": 1, "peft": peft}
    whole = make_trainer(tmp_path, "lisa", **settings)
    whole.train()
    for step in (1, 2, 3, 7, 8):
        resumed = make_trainer(tmp_path, "lisa", **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert_same(trained_weights(resumed), trained_weights(whole))


def test_the_split_of_a_step_does_not_matter(tmp_path):
    def weights(batch, accumulation):
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer = make_trainer(tmp_path, "lisa", **SHORT, **settings)
        trainer.train()
        return trained_weights(trainer)

    expected = weights(8, 1)
    for split in ((4, 2), (2, 4), (1, 8)):
        for name, value in weights(*split).items():
            torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "settings", "clash"),
    [
        ("lisa+der", {}, "replay safety rows"),
        ("lisa", {"packing": True, "max_length": 64}, "packing"),
        ("lisa", {"train_sampling_strategy": "group_by_length"}, "sampling strategy"),
    ],
    ids=["der", "packing", "sampling"],
)
def test_what_it_does_not_go_with(tmp_path, method, settings, clash):
    with pytest.raises(ValueError, match=clash):
        make_trainer(tmp_path, method, peft=lora(), **settings)
