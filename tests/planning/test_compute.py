"""Operations by hand, the schedule, and GPUs."""

import pytest
import torch
from transformers import LlamaConfig
from trl import ModelConfig

from safe_sft.planning import Rows, make_plan
from safe_sft.planning.compute import Batch, linear_elements, step_work
from safe_sft.planning.configs import model_config
from safe_sft.planning.gpus import GIB, GPUS, OVERHEAD_BYTES, find_gpu, find_gpus, memory_of
from safe_sft.planning.model import plan_model
from safe_sft.planning.schedule import Schedule, most_replayed, most_replayed_apart
from safe_sft.planning.teacher import computed_rows

from ..conftest import lora, make_config

TINY = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}
#: q, k, v, o: 4 · 64; gate, up, down: 3 · 48.
LINEAR = 4 * 64 + 3 * 48
NO_REPLAY = Batch(0, 0, 0)


def runnable(adapter):
    return plan_model(LlamaConfig(**TINY), torch.float32, None, adapter).runnable


def test_full_tuning_by_hand(tmp_path):
    work = step_work(runnable(None), make_config(tmp_path, safety_method="none"), Batch(3, 10, 4), NO_REPLAY, 0)
    attention = 2 * 10**2 * 2 * 4  # T² · heads · head width, queries with keys and weights with values, half of each
    assert work.forward == 3 * (2 * LINEAR * 10 + attention)
    assert work.backward == 2 * work.forward
    assert work.head == 2 * (11 * 8) * 4 * (3 * 4)  # forward, forward again, two gradients; 3 rows of 4 tokens
    assert (work.recomputed, work.teacher) == (0, 0)
    assert work.total == work.forward + work.backward + work.head


def test_frozen_weights_spare_a_third(tmp_path):
    model = runnable(lora(r=1))
    total, trained = linear_elements(model)
    factors = 4 * (8 + 8) + 3 * (8 + 6)
    assert (total, trained) == (LINEAR + factors, factors)
    args = make_config(tmp_path, safety_method="none", gradient_checkpointing=True)
    work = step_work(model, args, Batch(1, 10, 5), NO_REPLAY, 0)
    attention = 2 * 10**2 * 2 * 4
    assert work.backward == 2 * (total + trained) * 10 + 2 * attention
    assert work.recomputed == work.forward
    assert work.head == 2 * (11 * 8) * 3 * 5


def test_a_teacher_is_a_forward_of_what_it_has_not_computed_yet(tmp_path):
    model, task, replay = runnable(lora()), Batch(8, 10, 5), Batch(2, 6, 3)
    row = step_work(runnable(None), make_config(tmp_path, safety_method="none"), Batch(1, 6, 3), NO_REPLAY, 0)
    der = [step_work(model, make_config(tmp_path, safety_method="der"), task, replay, rows) for rows in (0, 0.5, 2)]
    assert [work.teacher for work in der] == [0, 0.5 * row.forward, 2 * row.forward]
    lwf = step_work(model, make_config(tmp_path, safety_method="lwf"), Batch(1, 6, 3), NO_REPLAY, 0)
    assert lwf.teacher == row.forward
    csft = step_work(model, make_config(tmp_path, safety_method="csft"), Batch(1, 6, 3), NO_REPLAY, 0)
    assert csft.teacher == row.forward
    none = step_work(model, make_config(tmp_path, safety_method="none"), Batch(1, 6, 3), NO_REPLAY, 0)
    assert csft.head == pytest.approx((1 + (3 + 1) / 3) * none.head)  # the likelihoods of both models


@pytest.mark.parametrize(
    ("settings", "devices", "steps", "rows", "expected"),
    [
        ({}, 1, 10, 8, 8 / 10),  # 20 rows are replayed: each of 8 is run once
        ({}, 1, 10, 100, 2),  # none comes twice
        ({}, 2, 10, 100, 2 * 20 / 40),  # of the 20 rows, each device replays a half
        ({}, 2, 10, 10, 7.5 / 10),  # two passes: a device misses each row with a probability of a quarter
        ({"teacher_memory": 4 * 3 * 100 / 2**30}, 1, 10, 8, 4 / 10 + 2 / 2),  # half of the rows fit
        ({"teacher_memory": 0}, 1, 10, 8, 2),
        ({}, 1, None, 8, 2),
        ({}, 1, 10, None, 2),
        ({"teacher": "cached"}, 1, 10, 8, 0),
        ({"safety_method": "er"}, 1, 10, 8, 0),
    ],
)
def test_rows_that_the_aligned_model_runs_in_a_step(tmp_path, settings, devices, steps, rows, expected):
    args = make_config(tmp_path, **settings)
    schedule = Schedule(8 * devices, 2, 80, 12, steps, devices)
    found = computed_rows(args, schedule, Rows(rows, 6, 6, 3), state_bytes=100, fresh=True)
    assert found == pytest.approx(expected)


def plan_of(folder, task=None, devices=1, **settings):
    args = make_config(folder, **{"max_steps": -1, "num_train_epochs": 3, **settings})
    model = ModelConfig(model_name_or_path="Qwen/Qwen3-0.6B", use_peft=True, lora_target_modules=["all-linear"])
    task = task or Rows(100, 20, 40, 10, counted=True)
    return make_plan(args, model, task, Rows(6, 12, 16, 8), utilization=0.5, devices=devices)


def test_schedule(tmp_path):
    plan = plan_of(
        tmp_path, devices=2, per_device_train_batch_size=8, gradient_accumulation_steps=2, safety_method="der"
    )
    schedule = plan.schedule
    assert (schedule.task_rows, schedule.replay_rows) == (32, 8)
    assert (schedule.task_tokens, schedule.replay_tokens) == (32 * 20, 8 * 12)
    assert schedule.replay_row_share == 0.2
    assert schedule.replay_token_share == pytest.approx(96 / 736)
    # 100 rows: 7 micro-steps on two devices, 4 steps an epoch.
    assert schedule.steps == 12
    gpu = GPUS["A100-80GB"]
    assert plan.hours(gpu) == pytest.approx(12 * plan.work.total / (312e12 * 0.5) / 3600)


def test_steps_are_not_known_without_rows(tmp_path):
    plan = plan_of(tmp_path, Rows(None, 20, 40, 10))
    assert plan.schedule.steps is None
    assert plan.hours(GPUS["L4"]) is None
    assert plan_of(tmp_path, Rows(None, 20, 40, 10), max_steps=7).schedule.steps == 7


def test_replay_and_larger_batches_take_more(tmp_path):
    none = plan_of(tmp_path, safety_method="none").device_bytes
    assert none < plan_of(tmp_path, safety_method="er").device_bytes
    assert none < plan_of(tmp_path, safety_method="none", per_device_train_batch_size=8).device_bytes
    assert none > plan_of(tmp_path, safety_method="none", gradient_checkpointing=True).device_bytes


def test_a_projection_runs_the_replayed_rows_apart(tmp_path):
    """It keeps a second gradient; beside another method that replays, each row runs twice."""
    work = {}
    for method in ("none", "er", "agem", "agem+er"):
        plan = plan_of(tmp_path, safety_method=method, per_device_train_batch_size=8)
        work[method] = plan.work.forward
        if method == "agem":
            second, gradients = (
                next(item.size for item in plan.items if item.name == name)
                for name in ("gradient of the safety rows", "gradients")
            )
            assert second == gradients
    assert work["agem"] == work["er"]
    assert work["agem+er"] - work["er"] == pytest.approx(work["er"] - work["none"])


@pytest.mark.parametrize(
    ("method", "steps", "beside", "apart"),
    [("er", 4, 2, 0), ("agem", 1, 0, 2), ("agem", 2, 0, 4), ("agem", 16, 0, 8), ("agem+er", 2, 2, 4)],
)
def test_rows_that_run_at_a_time(tmp_path, method, steps, beside, apart):
    args = make_config(
        tmp_path, safety_method=method, per_device_train_batch_size=8, gradient_accumulation_steps=steps
    )
    assert (most_replayed(args), most_replayed_apart(args)) == (beside, apart)


SOLD_AS = [16, 24, 40, 48, 80, 141, 180]


def test_gpus():
    assert find_gpu("a100 80gb") is GPUS["A100-80GB"]
    assert find_gpu("NVIDIA L4") is GPUS["L4"]
    assert memory_of("24GB") == int(24 * GIB * 0.95)
    assert memory_of("h100") == GPUS["H100"].memory
    gpu = GPUS["L4"]
    assert gpu.fits(gpu.memory - OVERHEAD_BYTES)
    assert not gpu.fits(gpu.memory - OVERHEAD_BYTES + 1)
    assert [gpu.name for gpu in find_gpus("24GB")] == ["L4", "A10G", "RTX3090", "RTX4090"]
    assert find_gpus("l4") == [gpu]
    for gpu in GPUS.values():  # every one is found by what it is sold as
        assert gpu in find_gpus(f"{next(size for size in SOLD_AS if size * GIB >= gpu.memory * 0.97)}GB")
    with pytest.raises(ValueError, match="Choose from: T4, L4"):
        find_gpu("Z80")
    with pytest.raises(ValueError, match=r"`--gpu 12GB`. Choose from: T4 \(15 GiB\)"):
        find_gpus("12GB")
    with pytest.raises(ValueError, match="--gpu 24GB"):
        memory_of("much")


def test_an_unknown_model_offline():
    with pytest.raises(ValueError, match="shape of `model_name_or_path='no/such'` is not known"):
        model_config("no/such")
