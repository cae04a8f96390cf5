"""The watch over the gradient: its numbers, and that watching changes nothing."""

import pytest
import torch

from safe_sft.methods.registry import METHODS
from safe_sft.trainer import gradient_watch
from safe_sft.trainer.gradient_watch import GradientWatch, gradient_share
from tests.conftest import assert_same, logged, lora, make_trainer, move_off_the_anchor, trained_weights

WITH_LOSS = sorted(name for name, method in METHODS.items() if method.has_loss and not method.projects)


@pytest.fixture
def every_step(monkeypatch):
    """Measure each step."""
    monkeypatch.setattr(gradient_watch, "EVERY", 1)
    monkeypatch.setattr(gradient_watch, "FIRST", 0)


def make(tmp_path, method="der", **config):
    return make_trainer(tmp_path, method, **{"safety_weight": 1.0, "max_steps": 2, **config})


def test_the_share_of_gradients_worked_out_by_hand():
    safety, task = (
        [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])],
        [torch.tensor([-6.0]), torch.tensor([[8.0, 0.0]])],
    )
    total = [s + t for s, t in zip(safety, task, strict=True)]
    assert gradient_share(safety, total).item() == pytest.approx(5 / (5 + 10))
    nothing = [torch.zeros(2)]
    assert gradient_share(nothing, [torch.zeros(2)]).item() == 0.0


@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "plain"])
@pytest.mark.parametrize("method", WITH_LOSS)
def test_watching_changes_no_weight(tmp_path, monkeypatch, method, checkpointing):
    runs = []
    for first in (0, -1):  # watched in every step, and in none
        monkeypatch.setattr(gradient_watch, "EVERY", 1)
        monkeypatch.setattr(gradient_watch, "FIRST", first)
        trainer = make(
            tmp_path,
            method,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            gradient_checkpointing=checkpointing,
        )
        trainer.train()
        runs.append((trained_weights(trainer), logged(trainer, "safety/share")))
    assert_same(runs[0][0], runs[1][0])
    assert len(runs[0][1]) == 1 + (method == "er")  # the others have no gradient at the aligned model
    assert not runs[1][1]


@pytest.mark.parametrize("method", ["der", "lwf"])
@pytest.mark.parametrize(
    "config", [{"padding_free": True, "max_length": None}, {"packing": True, "max_length": 32}], ids=str
)
def test_watching_changes_no_weight_with_dropout_and_flattened_batches(tmp_path, monkeypatch, method, config):
    runs = []
    for first in (0, -1):
        monkeypatch.setattr(gradient_watch, "EVERY", 1)
        monkeypatch.setattr(gradient_watch, "FIRST", first)
        trainer = make(tmp_path, method, peft=lora(lora_dropout=0.2), max_steps=3, **config)
        trainer.train()
        runs.append((trained_weights(trainer), logged(trainer, "safety/share")))
    assert_same(runs[0][0], runs[1][0])
    assert runs[0][1]


def test_offloaded_activations_are_left_alone(tmp_path):
    trainer = make(tmp_path, "der", gradient_checkpointing=True)
    assert trainer._watch._measures
    trainer.args.activation_offloading = True
    assert not gradient_watch.watch_gradients(trainer)._measures


@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1e3], ids=["no clipping", "clipped", "not clipped"])
def test_the_share_is_that_of_two_runs(tmp_path, every_step, max_norm):
    """The whole gradient of plain SFT, and of the term with a task that is taken away, give the same share."""
    trainer = make(
        tmp_path, "l2", penalty_normalization="none", safety_weight=0.5, max_steps=1, max_grad_norm=max_norm
    )
    move_off_the_anchor(trainer)
    space = next(iter(trainer._methods))._space
    alone = torch.autograd.grad(0.5 * space.penalty(), gradient_watch._watched(trainer.model))
    seen = {}
    whole_one = GradientWatch.on_pre_optimizer_step

    def look(self, args, state, control, **kwargs):
        grads = [p.grad.clone() for p in gradient_watch._watched(kwargs["model"])]
        norm = torch.stack([g.norm() for g in grads]).norm()
        seen["total"] = [g * (float(self._norm) / norm) for g in grads]
        whole_one(self, args, state, control, **kwargs)

    trainer._watch.on_pre_optimizer_step = look.__get__(trainer._watch)
    trainer.train()
    expected = gradient_share(list(alone), seen["total"])
    assert 0.01 < expected < 0.99
    assert logged(trainer, "safety/share") == pytest.approx([expected.item()], rel=1e-3)


@pytest.mark.parametrize("method", ["der", "er", "l2", "lwf"])
def test_accumulation_does_not_change_the_share(tmp_path, every_step, method):
    shares = []
    for batch, steps in ((4, 1), (2, 2)):
        config = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_steps": 1}
        trainer = make(tmp_path, method, **config)
        move_off_the_anchor(trainer)
        trainer.train()
        shares += logged(trainer, "safety/share")
    assert 0 < shares[0] < 1
    assert shares[1] == pytest.approx(shares[0], rel=1e-4)


def test_how_often_clipping_bit_is_logged(tmp_path):
    for max_norm, expected in ((1e-6, 1.0), (1e6, 0.0)):
        trainer = make(tmp_path, max_grad_norm=max_norm)
        trainer.train()
        assert logged(trainer, "safety/clipped") == [expected, expected]
    unclipped = make(tmp_path, max_grad_norm=0.0)
    unclipped.train()
    assert not logged(unclipped, "safety/clipped")


def test_a_task_that_starves_is_said_once(tmp_path, every_step, caplog):
    trainer = make(tmp_path, "l2", penalty_normalization="none", safety_weight=1e3, max_steps=5, learning_rate=1e-9)
    move_off_the_anchor(trainer)
    trainer.train()
    warnings = [r.message for r in caplog.records if "of the gradient" in r.message]
    assert len(warnings) == 1
    assert "Lower `safety_weight`" in warnings[0]


def test_terms_that_do_nothing_are_said(tmp_path, every_step, caplog):
    make(tmp_path, "l2", safety_weight=1e-9).train()
    assert "they have changed next to nothing" in caplog.text


def test_large_models_are_sampled(tmp_path, monkeypatch):
    model = make(tmp_path).model
    whole = sum(p.numel() for p in model.parameters() if p.requires_grad)
    monkeypatch.setattr(gradient_watch, "MOST_NUMBERS", whole // 3)
    watched = gradient_watch._watched(model)
    assert watched
    assert sum(p.numel() for p in watched) < whole / 2
