"""`agem` and `safegrad`: the gradient of a whole step is projected, and nothing else of it changes."""

import math
from contextlib import nullcontext

import pytest
import torch
from trl import SFTTrainer

from safe_sft import SafeSFTTrainer
from safe_sft.methods import METHODS, Projection
from safe_sft.models.finite import NotFinite
from safe_sft.trainer.projection import inner_products, safety_share
from tests.conftest import (
    assert_same,
    logged,
    lora,
    make_config,
    make_model,
    make_trainer,
    move_off_the_anchor,
    relative_difference,
    task_rows,
    trained_weights,
    turned_around,
    updates_of_an_epoch,
)
from tests.methods.test_contract import update

PROJECTING = sorted(name for name, method in METHODS.items() if method.projects)
#: Method -> the one whose term has the same gradient, and the weight with which it is added after the projection.
AS_A_TERM = {"agem": ("er", 0.0), "safegrad": ("der", 1.0)}


@pytest.fixture
def opposed():
    """Turn the safety gradient around, so that it opposes the task's where it went with it."""
    with turned_around():
        yield


def make(folder, method="agem", **settings):
    """A trainer off the anchor whose safety rows are the task's own, so that their gradients agree."""
    settings = {"safety": list(task_rows()), "replay_ratio": 1.0, "max_steps": 1, **settings}
    trainer = make_trainer(folder, method, **settings)
    move_off_the_anchor(trainer)
    return trainer


def plain(folder, **settings):
    trainer = make_trainer(folder, cls=SFTTrainer, **{"max_steps": 1, **settings})
    move_off_the_anchor(trainer)
    return trainer


def flat(gradients: dict) -> torch.Tensor:
    return torch.cat([gradients[name].double().flatten() for name in sorted(gradients)])


def test_both_methods_are_tested():
    assert sorted(AS_A_TERM) == PROJECTING


def test_a_projection_worked_out_by_hand():
    """g = (3, 4) and s = (-2, 0): g loses its part along s, (3, 0); with a weight of a half, s/2 is added."""
    task, safety = [torch.tensor([3.0]), torch.tensor([[4.0]])], [torch.tensor([-2.0]), torch.tensor([[0.0]])]
    products = inner_products(task, safety).tolist()
    assert products == [-6.0, 25.0, 4.0]
    assert safety_share(*products, weight=0.0) == 1.5  # (3, 4) + 1.5 · (-2, 0) = (0, 4)
    assert safety_share(*products, weight=0.5) == 2.0
    assert safety_share(6.0, 25.0, 4.0, weight=0.0) == 0.0
    assert safety_share(6.0, 25.0, 4.0, weight=0.5) == 0.5


def test_rounding_has_no_direction_and_no_number_is_no_projection():
    assert safety_share(-1e-16, 1.0, 1e-30, weight=0.0) == 0.0
    assert safety_share(0.0, 0.0, 0.0, weight=0.0) == 0.0
    assert safety_share(0.0, 0.0, 1.0, weight=0.5) == 0.5
    for numbers in ((math.nan, 1.0, 1.0), (math.inf, math.inf, 1.0), (math.inf, 1.0, math.inf)):
        assert math.isnan(safety_share(*numbers, weight=0.0))


def test_inner_products_are_summed_in_float32(monkeypatch):
    """256 + 1 is 256 in bfloat16; and large tensors are taken in pieces."""
    monkeypatch.setattr("safe_sft.trainer.projection._AT_A_TIME", 3)
    ones = [torch.ones(257, dtype=torch.bfloat16), torch.zeros(0, dtype=torch.bfloat16)]
    assert inner_products(ones, ones).tolist() == [257.0] * 3


@pytest.mark.parametrize("peft", [lora(lora_dropout=0.05), False], ids=["lora with dropout", "full"])
def test_where_the_gradients_agree_agem_is_plain_sft_to_the_bit(tmp_path, peft):
    config = {"peft": peft, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_steps": 3}
    ours = make(tmp_path, **config)
    moved = update(ours)
    theirs = plain(tmp_path, **config)  # made afterwards, because it seeds the dropout
    assert_same(moved, update(theirs))
    assert logged(ours, "loss") == logged(theirs, "loss") == logged(ours, "task_loss")
    assert logged(ours, "num_tokens") == logged(theirs, "num_tokens")
    assert logged(ours, "safety/agem_projected") == [0.0] * 3
    assert min(logged(ours, "safety/agem_cosine")) > 0
    assert min(logged(ours, "safety/agem")) > 0  # it was computed, not skipped
    assert logged(ours, "safety_loss") == [0.0] * 3


@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("method", PROJECTING)
def test_a_step_is_the_projection_of_two_runs(tmp_path, method, peft):
    """The gradients come from plain fine-tuning, and from the method that adds the same loss in its joint forward.

    With the safety gradient as it is, and turned around, each method is projected once.
    """
    term, weight = AS_A_TERM[method]
    config = {"peft": peft, "learning_rate": 1.0}
    task = flat(update(plain(tmp_path, **config)))
    safety = flat(update(make(tmp_path, term, safety_weight=1.0, **config))) - task
    projected = []
    for sign, context in ((1, nullcontext()), (-1, turned_around())):
        ours = make(tmp_path, method, **config)
        with context:
            moved = flat(update(ours))
        s = sign * safety
        expected = task - min(task @ s, 0.0) / (s @ s) * s + weight * s
        assert ((moved - expected).norm() / expected.norm()).item() < 1e-5
        cosine = (task @ s / (task.norm() * s.norm())).item()
        assert logged(ours, f"safety/{method}_cosine") == pytest.approx([cosine], abs=1e-5)
        projected += logged(ours, f"safety/{method}_projected")
        assert projected[-1] == (cosine < 0)
    assert sorted(projected) == [0.0, 1.0]


@pytest.mark.parametrize("turned", [False, True], ids=["as it is", "turned around"])
@pytest.mark.parametrize("method", PROJECTING)
def test_a_projected_step_does_not_depend_on_how_it_is_split(tmp_path, method, turned):
    """Steps of 16 task rows, and a last one of 8, as batch × accumulation."""
    with turned_around() if turned else nullcontext():
        whole, terms = updates_of_an_epoch(tmp_path, method, per_device_train_batch_size=16)
        for batch, steps in ((4, 4), (1, 16)):
            split = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
            updates, others = updates_of_an_epoch(tmp_path, method, **split)
            assert all(relative_difference(*pair) < 1e-5 for pair in zip(updates, whole, strict=True))
            assert others == pytest.approx(terms, rel=1e-4, abs=1e-9)


def test_a_step_that_replays_nothing_is_plain(tmp_path, opposed):
    """A quarter of a row to replay: every fourth step is projected, and the others are those of plain fine-tuning."""
    config = {"per_device_train_batch_size": 1, "replay_ratio": 0.25}
    long = make(tmp_path, max_steps=8, **config)
    long.train()
    projected = logged(long, "safety/agem_projected")
    assert sorted(projected) == [0.0] * 6 + [1.0] * 2
    assert len(logged(long, "safety/agem_cosine")) == 2
    first = projected.index(1.0)
    assert first > 0
    ours, theirs = make(tmp_path, max_steps=first, **config), plain(tmp_path, max_steps=first, **config)
    assert_same(update(ours), update(theirs))


def test_the_log_is_of_the_steps_since_the_last(tmp_path, opposed):
    config = {"per_device_train_batch_size": 1, "replay_ratio": 0.25, "max_steps": 8}
    each, together = make(tmp_path, **config), make(tmp_path, logging_steps=8, **config)
    each.train()
    together.train()
    assert logged(together, "safety/agem_projected") == [0.25]
    cosines = logged(each, "safety/agem_cosine")
    assert logged(together, "safety/agem_cosine") == pytest.approx([sum(cosines) / 2])


def test_other_terms_are_projected_with_the_task(tmp_path, opposed):
    config = {"learning_rate": 1.0, "importance_space": "adapter"}
    both = flat(update(make(tmp_path, "l2", safety_weight=100.0, **{**config, "replay_ratio": 0.25})))
    only_er = {"learning_rate": 1.0}
    safety = flat(update(plain(tmp_path, **only_er))) - flat(
        update(make(tmp_path, "er", safety_weight=1.0, **only_er))
    )
    ours = make(tmp_path, "agem+l2", safety_weight=100.0, **config)
    moved = flat(update(ours))
    expected = both - min(both @ safety, 0.0) / (safety @ safety) * safety
    assert logged(ours, "safety/agem_projected") == [1.0]
    assert ((moved - expected).norm() / expected.norm()).item() < 1e-4
    terms = logged(ours, "safety/l2")[0]
    assert logged(ours, "safety_loss") == pytest.approx([100 * terms], rel=1e-5)


def test_the_projected_gradient_is_clipped(tmp_path, opposed):
    free, clipped = (make(tmp_path, learning_rate=1.0, max_grad_norm=norm) for norm in (0.0, 1e-2))
    direction, moved = (flat(update(trainer)) for trainer in (free, clipped))
    assert moved.norm().item() == pytest.approx(1e-2, rel=1e-3)
    assert torch.cosine_similarity(moved, direction, dim=0).item() == pytest.approx(1.0, abs=1e-5)
    norms = [logged(trainer, "grad_norm")[0] for trainer in (free, clipped)]
    assert norms[0] == pytest.approx(norms[1]) == pytest.approx(direction.norm().item(), rel=1e-3)


@pytest.mark.parametrize("method", PROJECTING)
@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_gradient_checkpointing_does_not_change_the_update(tmp_path, opposed, method, reentrant):
    config = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    ours, theirs = make(tmp_path, method, **config, max_steps=2), make(tmp_path, method, max_steps=2)
    assert relative_difference(update(ours), update(theirs)) < 1e-5


@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("method", PROJECTING)
def test_resume_equals_uninterrupted(tmp_path, opposed, method, peft):
    adapter = lora(lora_dropout=0.2) if peft else False
    config = {"max_steps": 4, "optim": "adamw_torch", "learning_rate": 0.01, "peft": adapter}
    config |= {"replay_ratio": 0.25, "safety": None, "gradient_accumulation_steps": 2}
    whole = make_trainer(tmp_path / "whole", method, **config)
    whole.train()
    make_trainer(tmp_path / "parts", method, **config, **{"save_strategy": "steps", "save_steps": 1}).train()
    second = make_trainer(tmp_path / "parts", method, **config)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert_same(trained_weights(second), trained_weights(whole), rtol=1e-6, atol=1e-7)
    for name in ("projected", "cosine"):
        name = f"safety/{method}_{name}"
        assert logged(second, name) == pytest.approx(logged(whole, name), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("teacher", ["online", "cached"])
def test_safegrad_starts_as_plain_sft(tmp_path, teacher):
    """At the aligned model the divergence is at its least: its gradient has no direction, or is rounding."""
    model = make_model(dtype=torch.float64)
    ours = make_trainer(tmp_path, "safegrad", model=model, teacher=teacher, max_steps=1)
    moved = update(ours)
    theirs = update(make_trainer(tmp_path, model=make_model(dtype=torch.float64), cls=SFTTrainer, max_steps=1))
    assert logged(ours, "safety/safegrad_projected") in ([], [0.0])
    assert relative_difference(moved, theirs) < 1e-6


@pytest.mark.parametrize("method", PROJECTING)
def test_evaluation_loss_is_the_task_loss(tmp_path, method):
    ours, theirs = make(tmp_path, method), plain(tmp_path)
    assert ours.evaluate(task_rows(5))["eval_loss"] == theirs.evaluate(task_rows(5))["eval_loss"]


def test_packed_rows_are_projected(tmp_path, opposed):
    ours = make(tmp_path, packing=True, max_length=64)
    ours.train()
    assert logged(ours, "safety/agem_projected") == [1.0]


def test_parameters_that_one_side_does_not_use(tmp_path, opposed):
    """A weight that neither loss reads stays as it is, and does not decay either."""
    trainer = make(tmp_path, peft=False, optim="adamw_torch", weight_decay=0.5)
    trainer.model.unused = torch.nn.Parameter(torch.ones(2))
    trainer.train()
    assert trainer.model.unused.tolist() == [1.0, 1.0]
    assert logged(trainer, "safety/agem_projected") == [1.0]


def test_a_safety_gradient_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    class Infinite(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.inf

    losses = METHODS["agem"].token_losses
    monkeypatch.setattr(METHODS["agem"], "token_losses", lambda self, replay: Infinite.apply(losses(self, replay)))
    trainer = make(tmp_path)
    before = trained_weights(trainer)
    with pytest.raises(NotFinite, match="step 1"):
        trainer.train()
    assert_same(trained_weights(trainer), before)


def test_a_step_that_is_not_projected_stops_the_run(tmp_path):
    class Own(SafeSFTTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            return SFTTrainer.training_step(self, model, inputs, *args, **kwargs)

    trainer = make(tmp_path, cls=SafeSFTTrainer)
    trainer.__class__ = Own
    with pytest.raises(RuntimeError, match="`agem` was not computed in step 1"):
        trainer.train()


def test_the_share_of_the_gradient_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("safe_sft.trainer.gradient_watch.EVERY", 1)
    monkeypatch.setattr("safe_sft.trainer.gradient_watch.FIRST", 0)
    trainer = make(tmp_path, "agem+l2", max_grad_norm=1.0)
    trainer.train()
    assert not logged(trainer, "safety/share")
    assert len(logged(trainer, "safety/clipped")) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"safety_method": "agem+safegrad"}, "projects the gradient twice, for agem and safegrad.*Name one"),
        ({"safety_method": "agem", "safety_weight": "auto"}, "1 weights for the 0 terms of"),
        ({"safety_method": "agem", "safety_weight": 1.0}, "leave it out"),
        ({"safety_method": "safegrad", "safety_weight": "auto"}, "`safegrad` has none. Give it a number"),
        ({"safety_method": "agem", "teacher": "online"}, "no effect with `safety_method='agem'`.*safegrad"),
    ],
)
def test_refused_settings(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(tmp_path, **settings)


def test_a_family_of_its_own():
    assert all(issubclass(METHODS[name], Projection) for name in PROJECTING)
