"""A teacher that remembers: each row is run once, alone; what does not fit is run again; ranks go in step."""

import random

import pytest
import torch

from safe_sft.data import TokenizedRow
from safe_sft.replay import OnlineTeacher, ReplayBatch, ReplaySchedule, TeacherMemory, deal
from tests.conftest import assert_same, make_trainer, trained_weights

CPU = torch.device("cpu")
#: Row `i` has `i + 1` tokens with a label, and so as many states.
ROWS = [TokenizedRow([1, *range(10, 11 + i)], [-100, *range(10, 11 + i)]) for i in range(6)]
#: Bytes of a state of two float32 numbers.
STATE = 8


class Model:
    """Stands for the aligned model: counts its forwards, and rounds as a model does, by the size of the batch."""

    def __init__(self):
        self.batches = []

    def __call__(self, replay: ReplayBatch) -> torch.Tensor:
        self.batches.append(replay.rows)
        noise = 1e-3 * len(replay.rows)
        return torch.stack([replay.targets + noise, -replay.targets.float()], dim=1)


def replay(*rows: int) -> ReplayBatch:
    return ReplayBatch.of(ROWS, rows, CPU)


def test_each_row_is_run_once_and_alone():
    model, memory = Model(), TeacherMemory(ROWS, 2**20)
    first = memory.hidden(replay(3, 1), model)
    again = memory.hidden(replay(1, 4, 3, 1), model)
    assert model.batches == [(5,), (3,), (1,), (4,)]  # the last row shows how large a state is
    assert torch.equal(first[:4], again[7:11])
    assert torch.equal(again[:2], again[11:])
    alone = torch.cat([Model()(replay(row)) for row in (1, 4, 3, 1)])
    assert torch.equal(again, alone)
    assert memory.size == (6 + 4 + 2 + 5) * STATE


def test_what_does_not_fit_is_run_again_in_one_forward():
    model, memory = Model(), TeacherMemory(ROWS, 13 * STATE)  # rows 5 and 4 take 11 states, row 3 four more
    for _ in range(2):
        states = memory.hidden(replay(4, 0, 3), model)
        assert states[:, 1].tolist() == (-replay(4, 0, 3).targets.float()).tolist()
    assert model.batches == [(5,), (4,), (0, 3), (0, 3)]
    assert memory.size == 11 * STATE
    small = TeacherMemory(ROWS, 5 * STATE)
    assert small.hidden(replay(5, 1), model).shape == (8, 2)
    assert small.size == 0


@pytest.mark.parametrize("limit", [0, 10 * STATE, 2**20])
@pytest.mark.parametrize("ranks", [2, 3])
def test_where_ranks_go_in_step_they_run_as_many_forwards(limit, ranks):
    schedule = ReplaySchedule(tuple(row.supervised_tokens for row in ROWS), 0.25, seed=1)
    models = [Model() for _ in range(ranks)]
    memories = [TeacherMemory(ROWS, limit) for _ in range(ranks)]
    sizes = random.Random(0)
    for step in range(40):
        rows = schedule.rows(step, sizes.randint(1, 30))
        for micro_step in range(3):
            dealt = deal(rows, micro_step, 3, ranks)
            if not any(dealt):
                continue
            everyone = [mine or rows[:1] for mine in dealt]
            for rank in range(ranks):
                memories[rank].hidden(replay(*everyone[rank]), models[rank], everyone)
            assert len({len(model.batches) for model in models}) == 1
    if limit == 2**20:
        assert len(models[0].batches) <= ranks * len(ROWS)


class CountedTeacher(OnlineTeacher):
    """An online teacher that notes the rows of each forward."""

    forwards: tuple = ()

    def hidden(self, model, replay):
        self.forwards = (*self.forwards, replay.rows)
        return super().hidden(model, replay)


def trainer_of(folder, **config):
    settings = {"safety_weight": 1.0, "max_steps": 6, "optim": "adamw_torch", "replay_ratio": 0.75, **config}
    trainer = make_trainer(folder, "der", **settings)
    trainer.teacher.__class__ = CountedTeacher
    return trainer


def test_training_runs_the_aligned_model_once_a_row(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    assert sorted(trainer.teacher.forwards) == [(row,) for row in range(6)]  # 18 rows were replayed
    states = trainer.teacher.memory.hidden(
        ReplayBatch.of(trainer._states._rows, range(6), CPU), lambda batch: pytest.fail("all are remembered")
    )
    assert not states.requires_grad
    assert states.dtype == torch.float32


@pytest.mark.parametrize("memory", [2.0, 4e-6], ids=["all fit", "some fit"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path, memory):
    whole = trainer_of(tmp_path / "whole", teacher_memory=memory)
    whole.train()
    trainer_of(tmp_path / "parts", teacher_memory=memory, max_steps=3, save_strategy="steps", save_steps=3).train()
    resumed = trainer_of(tmp_path / "parts", teacher_memory=memory)
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert_same(trained_weights(resumed), trained_weights(whole))


def test_a_memory_of_nothing_is_none(tmp_path):
    trainer = trainer_of(tmp_path, teacher_memory=0, max_steps=2)
    trainer.train()
    assert trainer.teacher.memory is None
    assert [len(rows) for rows in trainer.teacher.forwards] == [3, 3]
