"""The plan's operations against those that torch counts in real steps, for every split of a step.

Attention is eager, for torch does not count fused attention on a CPU; the inputs of the first layer need no gradient,
so that the plan is a little above.
"""

import pytest
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode
from trl import ModelConfig

from safe_sft.planning import Rows, make_plan

from ..conftest import make_model, make_trainer

SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8}
LENGTH, STEPS = 48, 4
#: Rows of the task and of the safety set are equally long, so that nothing is padded.
TASK = [{"input_ids": [1, *range(10, 9 + LENGTH)], "labels": [-100] * 24 + [*range(33, 9 + LENGTH)]}] * 16 * STEPS
SAFETY = [{"prompt": "<s>" + chr(97 + row) * 31, "completion": "b" * 20} for row in range(8)]
ROWS = Rows(16 * STEPS, LENGTH, LENGTH, 24, counted=True)
SPLITS = [(16, 1), (4, 4), (2, 8), (1, 16)]


def counted_and_planned(folder, batch: int, accumulation: int, method: str = "der", **settings) -> tuple[float, float]:
    """Operations of a mean step: as torch counts them, and as they are planned."""
    trainer = make_trainer(
        folder,
        method,
        model=make_model(**SHAPE, attn_implementation="eager"),
        train=Dataset.from_list(TASK),
        safety=SAFETY,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=STEPS,
        **settings,
    )
    with FlopCounterMode(display=False) as counter:
        trainer.train()
    trainer.model.get_base_model().config.save_pretrained(folder)
    model = ModelConfig(
        model_name_or_path=str(folder), use_peft=True, lora_r=4, lora_alpha=8, lora_target_modules=["all-linear"]
    )
    length, supervised = 0, 0
    if trainer._states is not None:
        (length,) = {len(row.input_ids) for row in trainer._states._rows}
        (supervised,) = {row.supervised_tokens for row in trainer._states._rows}
    plan = make_plan(trainer.args, model, ROWS, Rows(8, length, length, supervised, counted=True), utilization=0.5)
    return counter.get_total_flops() / STEPS, plan.work.total


def test_every_split_of_a_step_costs_the_same(tmp_path):
    counted, planned = zip(*(counted_and_planned(tmp_path, *split) for split in SPLITS), strict=True)
    assert max(counted) / min(counted) < 1.02
    assert max(planned) / min(planned) < 1.02
    assert planned[0] == pytest.approx(counted[0], rel=0.1)


@pytest.mark.parametrize("settings", [{}, {"teacher_memory": 0}], ids=["remembers", "forgets"])
def test_what_the_teacher_costs(tmp_path, settings):
    """16 rows of 8 are replayed: with a memory 8 forwards of a row, and 16 without."""
    online = counted_and_planned(tmp_path, 4, 4, **settings)
    cached = counted_and_planned(tmp_path, 4, 4, teacher="cached")
    counted, planned = (ours - without for ours, without in zip(online, cached, strict=True))
    assert planned == pytest.approx(counted, rel=0.1)
