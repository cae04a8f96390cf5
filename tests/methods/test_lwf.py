"""LwF and DER's divergences, against materialised logits."""

from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from safe_sft.losses import squared_hidden_distance
from tests.conftest import logged, make_model, make_trainer, move_off_the_anchor, relative_difference, task_rows
from tests.losses.test_losses import materialised_divergence
from tests.methods.test_contract import update

RECIPES = Path(__file__).parents[2] / "recipes"


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


@pytest.mark.parametrize("config", [{}, {"padding_free": True, "max_length": None}], ids=["padded", "padding-free"])
def test_the_paper_s_form_is_the_squared_distance_of_the_last_hidden_states(tmp_path, config):
    aligned, rows = make_model(), {"max_steps": 1, "train": task_rows(4)}
    trainer = make_trainer(tmp_path, "lwf", safety_weight=0.5, teacher_divergence="hidden", **rows, **config)
    move_off_the_anchor(trainer)
    losses, distances = [], []
    for row in trainer.train_dataset:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        ours, theirs = (model(ids, output_hidden_states=True) for model in (trainer.model, aligned))
        h, h0 = (output.hidden_states[-1][0, :-1][labels != -100] for output in (ours, theirs))
        distances.append((h - h0.detach()).pow(2).sum(-1))
        losses.append(F.cross_entropy(ours.logits[0, :-1][labels != -100], labels[labels != -100], reduction="none"))
    distance = torch.cat(distances).mean()
    expected = step_of(trainer, torch.cat(losses).mean() + 0.5 * distance)
    assert relative_difference(update(trainer), expected) < 1e-5
    assert logged(trainer, "safety/lwf")[0] == pytest.approx(distance.item(), rel=1e-4)


def test_a_number_by_hand_of_the_paper_s_form():
    distance = squared_hidden_distance(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]]))
    assert distance.tolist() == [5.0, 0.0]


def test_asft_is_lwf_beside_trl_s_dft(tmp_path):
    """Mean of `−sg(p)·log p + 0.1 · KL(p₀ ‖ p)` over supervised tokens, at the settings of the recipe."""
    recipe = yaml.safe_load((RECIPES / "tiny" / "asft.yaml").read_text())
    settings = {name: recipe[name] for name in ("loss_type", "safety_weight")} | {"learning_rate": 1.0}
    aligned = make_model()
    trainer = make_trainer(tmp_path, recipe["safety_method"], max_steps=1, train=task_rows(4), **settings)
    move_off_the_anchor(trainer)
    losses = []
    for row in trainer.train_dataset:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        log_p, log_p0 = (F.log_softmax(m(ids).logits[0, :-1], -1)[labels != -100] for m in (trainer.model, aligned))
        said = log_p.gather(1, labels[labels != -100, None])[:, 0]
        kl = (log_p0.exp() * (log_p0 - log_p)).sum(-1)
        losses.append(-said.exp().detach() * said + 0.1 * kl)
    expected = step_of(trainer, torch.cat(losses).mean())
    assert relative_difference(update(trainer), expected) < 1e-5


def step_of(trainer, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a step of the tests' SGD adds to the weights for this loss."""
    weights = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(weights.values()))
    return {name: -trainer.args.learning_rate * gradient for name, gradient in zip(weights, gradients, strict=True)}


def test_hidden_states_are_compared_on_the_task_s_rows_alone(tmp_path):
    with pytest.raises(ValueError, match=r"`der` compares outputs on replayed ones\. Set it to kl, or choose `lwf`"):
        make_trainer(tmp_path, "der+lwf", teacher_divergence="hidden")
    with pytest.raises(ValueError, match="no effect on the squared distance of `lwf`"):
        make_trainer(tmp_path, "lwf", teacher_divergence="hidden", teacher_temperature=2.0)


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
