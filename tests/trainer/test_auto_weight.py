"""`safety_weight: auto`: its rule by hand, its laws, and that it is the trainer's weight."""

import pytest
import torch

from safe_sft.methods.registry import METHODS
from safe_sft.trainer import auto_weight
from safe_sft.trainer.auto_weight import LEAST, MOST, AutoWeight
from tests.conftest import (
    assert_same,
    logged,
    make_config,
    make_trainer,
    move_off_the_anchor,
    task_rows,
    trained_weights,
)

AUTO = sorted(name for name, method in METHODS.items() if method.has_budget)


def make(start: float = 2.0, budget: float = 0.1) -> AutoWeight:
    weight = AutoWeight("der", start)
    weight.set_budget(budget)
    return weight


def after(weight: AutoWeight, *terms: float) -> float:
    for term in terms:
        weight.update(torch.tensor(term))
    return weight.value.item()


def test_two_steps_by_hand():
    weight = make()
    # The mean is 0.2, the error 1: λ = 2 + 2 · 0.1 · 1; there is no earlier error to compare with.
    assert after(weight, 0.2) == pytest.approx(2.2)
    # The mean is 0.2 + 0.1/10 = 0.21, the error 1.1, smoothed 1.05: λ = 2.2 + 2 · (0.1 · 1.1 + 0.5 · 0.05).
    assert after(weight, 0.3) == pytest.approx(2.2 + 2 * (0.11 + 0.025))


def test_a_term_at_its_budget_leaves_the_weight():
    assert after(make(), *[0.1] * 50) == pytest.approx(2.0)


def test_the_weight_is_bounded_on_both_sides():
    assert after(make(), *[0.0] * 100) == pytest.approx(LEAST * 2.0)
    assert after(make(), *[1e6] * 1000) == pytest.approx(MOST * 2.0)


def test_it_comes_back_at_once_from_its_bound():
    """A bounded weight is its own memory: no integral has wound up behind it."""
    weight = make()
    after(weight, *[1e6] * 1000)
    assert after(weight, *[0.0] * 200) < MOST * 2.0 / 2


def test_what_is_not_finite_changes_nothing():
    weight = make()
    after(weight, 0.2, 0.3)
    state = {name: tensor.clone() for name, tensor in weight.state_dict().items()}
    after(weight, float("nan"), float("inf"))
    assert_same(weight.state_dict(), state)


def test_a_budget_that_cannot_be_kept_is_said():
    assert make().broken is None
    weight = make()
    after(weight, *[1.0] * 1000)
    assert "could not keep `der` at its budget" in weight.broken
    assert "`safety_from_task: true`" in weight.broken


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_no_budget_is_refused(budget):
    with pytest.raises(ValueError, match="Set `safety_budget`"):
        AutoWeight("der", 1.0).set_budget(budget)


def test_its_state_goes_on():
    whole, first, second = make(), make(), AutoWeight("der", 2.0)
    terms = [0.3, 0.05, 0.7, 0.2, 0.1, 0.4]
    after(whole, *terms)
    after(first, *terms[:3])
    second.load_state_dict(first.state_dict())
    after(second, *terms[3:])
    assert_same(second.state_dict(), whole.state_dict())


def test_the_grammar(tmp_path):
    def weights(method, weight, **config):
        made = make_config(tmp_path, safety_method=method, safety_weight=weight, **config)
        return [weight for _, weight in made.safety_terms]

    assert weights("der", "auto") == ["auto"]
    assert weights("der+l2", "auto") == ["auto", METHODS["l2"].default_weight]
    assert weights("der+er", "auto+2") == ["auto", 2.0]
    assert weights("der+er", ["auto", 2]) == ["auto", 2.0]
    assert weights("der", "auto", teacher_divergence="squared", safety_budget=3.0) == ["auto"]
    for method, weight, config, words in (
        ("l2", "auto", {}, "`l2` has none"),
        ("der+l2", "1+auto", {}, "`l2` has none"),
        ("der", None, {"safety_budget": 0.1}, "Set `safety_weight: auto`"),
        ("der", "auto", {"safety_budget": -1.0}, "must be a number from"),
        ("der", "auto", {"teacher_divergence": "squared"}, "Set `safety_budget`"),
        ("der", "automatic", {}, "is not a number"),
    ):
        with pytest.raises(ValueError, match=words):
            weights(method, weight, **config)


@pytest.mark.parametrize("method", AUTO)
def test_it_moves_once_a_step_whatever_the_split(tmp_path, method):
    runs = []
    for batch, steps in ((4, 1), (2, 2)):
        trainer = make_trainer(
            tmp_path,
            method,
            safety_weight="auto",
            safety_budget=0.01,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
        )
        move_off_the_anchor(trainer)
        trainer.train()
        runs.append(logged(trainer, f"safety/{method}_weight"))
    assert len(set(runs[0])) == 2
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)


@pytest.mark.parametrize(
    ("method", "start", "fields"), [("er", 1, {}), ("der", 300, {"teacher_divergence": "relative_squared"})]
)
def test_the_loss_is_weighted_by_it(tmp_path, method, start, fields):
    trainer = make_trainer(tmp_path, method, safety_weight="auto", max_steps=3, **fields)
    trainer.train()
    used = [start, *logged(trainer, f"safety/{method}_weight")]
    terms = logged(trainer, f"safety/{method}")
    for term, weight, total in zip(terms, used, logged(trainer, "safety_loss"), strict=False):
        assert total == pytest.approx(term * weight, rel=1e-4)


def test_evaluation_does_not_move_it(tmp_path):
    trainer = make_trainer(tmp_path, "der", safety_weight="auto", max_steps=1, evaluation=task_rows(4))
    trainer.train()
    before = trainer._terms._auto["der"].state_dict()
    trainer.evaluate()
    assert_same(trainer._terms._auto["der"].state_dict(), before)


def test_resumed_equals_uninterrupted(tmp_path):
    def run(folder, steps):
        config = {"safety_weight": "auto", "safety_budget": 1e-4, "save_strategy": "steps", "save_steps": 1}
        return make_trainer(folder, "der", max_steps=steps, **config)

    whole = run(tmp_path / "whole", 4)
    whole.train()
    run(tmp_path / "parts", 2).train()
    resumed = run(tmp_path / "parts", 4)
    resumed.train(resume_from_checkpoint=True)
    assert_same(trained_weights(resumed), trained_weights(whole))
    ours, theirs = (trainer._terms._auto["der"].state_dict() for trainer in (resumed, whole))
    assert_same(ours, theirs)
    assert ours["value"] > METHODS["der"].default_weight


def test_the_budget_of_er_is_what_the_aligned_model_loses_and_more(tmp_path):
    trainer = make_trainer(tmp_path, "er", safety_weight="auto", max_steps=1, learning_rate=0.0)
    trainer.train()
    states = trainer._states.aligned_states(trainer.model)
    with torch.no_grad():
        own = METHODS["er"]().token_losses(states).mean().item()
    assert trainer._terms._auto["er"].state_dict()["budget"].item() == pytest.approx(own + 0.02, rel=1e-5)


def test_a_broken_budget_is_said_after_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(auto_weight, "MOST", 1.0)
    trainer = make_trainer(tmp_path, "er", safety_weight="auto", safety_budget=1e-3)
    trainer.train()
    assert "could not keep `er` at its budget" in caplog.text
