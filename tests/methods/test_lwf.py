"""LwF and DER's divergences, against materialised logits."""

import pytest
import torch

from tests.conftest import logged, make_model, make_trainer, move_off_the_anchor, task_rows
from tests.losses.test_losses import materialised_divergence


@pytest.mark.parametrize("config", [{}, {"padding_free": True, "max_length": None}], ids=["padded", "padding-free"])
def test_lwf_equals_materialised_logits(tmp_path, config):
    aligned = make_model()
    trainer = make_trainer(
        tmp_path, "lwf", safety_weight=1.0, max_steps=1, train=task_rows(4), teacher_temperature=2.0, **config
    )
    move_off_the_anchor(trainer)
    values = []
    with torch.no_grad():
        for row in trainer.train_dataset:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            z, z0 = trainer.model(ids).logits[0, :-1], aligned(ids).logits[0, :-1]
            values.append(materialised_divergence(z, z0, "kl", 2.0)[labels[1:] != -100])
    trainer.train()
    assert logged(trainer, "safety/lwf")[0] == pytest.approx(torch.cat(values).mean().item(), rel=1e-4)


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "jsd"])
def test_der_with_another_divergence_is_zero_at_the_anchor(tmp_path, divergence):
    trainer = make_trainer(tmp_path, "der", safety_weight=1.0, teacher_divergence=divergence, max_steps=3)
    trainer.train()
    values = logged(trainer, "safety/der")
    assert values[0] == pytest.approx(0.0, abs=1e-6)
    assert values[-1] > 0


def test_lwf_without_the_aligned_model_at_hand_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`safety_method='lwf'` does not work with full tuning.*choose `der`"):
        make_trainer(tmp_path, "lwf", peft=False)


def test_temperature_of_the_squared_distance_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no effect on the squared distance"):
        make_trainer(tmp_path, "der", teacher_divergence="squared", teacher_temperature=2.0)
