"""The laws that every safety method obeys."""

import pytest
import torch
from trl import SFTTrainer

from safe_sft import SafeSFTTrainer
from safe_sft.methods.registry import METHODS
from tests.conftest import (
    assert_same,
    logged,
    lora,
    make_model,
    make_trainer,
    move_off_the_anchor,
    relative_difference,
    task_rows,
    trained_weights,
    updates_of_an_epoch,
)

#: A method that alternates trains on other rows than plain SFT, and one that projects adds nothing to the loss: their
#: own files have the same laws for them.
SPECIAL = {name for name, method in METHODS.items() if method.alternates or method.projects}
ALL = sorted(name for name, method in METHODS.items() if method.has_loss and name not in SPECIAL)
REPLAYING = [name for name in ALL if METHODS[name].needs_replay]
#: Methods for full tuning and for adapters that were trained before: the others need the aligned model at every step.
ANYWHERE = [name for name in ALL if METHODS[name].keeps_task_losses or not METHODS[name].needs_task_states]
WITH_PEFT = [(name, peft) for name in ALL for peft in (True, False) if peft or name in ANYWHERE]
#: Methods whose term and gradient vanish at the aligned model.
ZERO_AT_ANCHOR = [name for name in ALL if name != "er"]


def join(monkeypatch, value: bool) -> None:
    """Force one forward, or two."""
    monkeypatch.setattr("safe_sft.trainer.step_states.joining_is_cheaper", lambda *_: value)


def update(trainer) -> dict[str, torch.Tensor]:
    """What training adds to the weights."""
    before = trained_weights(trainer)
    trainer.train()
    return {name: after - before[name] for name, after in trained_weights(trainer).items()}


@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
def test_none_is_plain_sft_bit_for_bit(tmp_path, peft):
    ours, theirs = (make_trainer(tmp_path, "none", peft=peft, cls=cls) for cls in (SafeSFTTrainer, SFTTrainer))
    assert_same(update(ours), update(theirs))
    assert logged(ours, "loss") == logged(theirs, "loss")
    assert not logged(ours, "safety_loss")


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "apart"])
@pytest.mark.parametrize(("method", "peft"), WITH_PEFT)
def test_zero_weight_equals_plain_sft(tmp_path, monkeypatch, method, joined, peft):
    join(monkeypatch, joined)
    ours = make_trainer(tmp_path, method, safety_weight=0.0, peft=peft)
    theirs = make_trainer(tmp_path, method, cls=SFTTrainer, peft=peft)
    untouched = method not in REPLAYING or not joined
    assert_same(update(ours), update(theirs), **({} if untouched else {"rtol": 1e-6, "atol": 1e-6}))
    assert logged(ours, "num_tokens") == logged(theirs, "num_tokens")
    if method == "er":  # the term is computed, not skipped
        assert min(logged(ours, "safety/er")) > 0


@pytest.mark.parametrize("method", [*ALL, "der+l2", "der++", "der+er+lwf"])
def test_a_step_does_not_depend_on_how_it_is_split(tmp_path, method):
    """Steps of 16 task rows, and a last one of 8, as batch × accumulation."""
    whole, terms = updates_of_an_epoch(tmp_path, method, per_device_train_batch_size=16)
    assert len(whole) == 3
    for batch, steps in ((4, 4), (2, 8), (1, 16)):
        split = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        updates, others = updates_of_an_epoch(tmp_path, method, **split)
        assert len(updates) == 3
        assert all(relative_difference(ours, theirs) < 1e-5 for ours, theirs in zip(updates, whole, strict=True))
        assert others == pytest.approx(terms, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("method", REPLAYING)
def test_steps_that_are_too_small_to_replay_give_the_term_its_weight_on_average(tmp_path, method):
    """One task row a step, and a quarter of a row to replay: every fourth step replays one, and counts four times."""
    config = {"per_device_train_batch_size": 1, "learning_rate": 0.0, "safety_weight": 1.0}
    one = make_trainer(tmp_path, method, max_steps=24, **config)
    four = make_trainer(tmp_path, method, max_steps=24, **config | {"per_device_train_batch_size": 4})
    for trainer in (one, four):
        move_off_the_anchor(trainer)
        trainer.train()
    terms = logged(one, "safety_loss")
    assert sum(term > 0 for term in terms) == 6
    assert sum(terms) / 24 == pytest.approx(sum(logged(four, "safety_loss")) / 24, rel=1e-4)


@pytest.mark.parametrize("teacher", ["online", "cached"])
@pytest.mark.parametrize("method", ZERO_AT_ANCHOR)
def test_zero_at_the_anchor(tmp_path, monkeypatch, method, teacher):
    join(monkeypatch, False)
    config = {"teacher": teacher} if METHODS[method].needs_teacher else {}
    ours, theirs = (
        make_trainer(tmp_path, method, model=make_model(dtype=torch.float64), cls=cls, max_steps=1, **settings)
        for cls, settings in ((SafeSFTTrainer, {"safety_weight": 1.0, **config}), (SFTTrainer, {}))
    )
    moved, plain = update(ours), update(theirs)
    if teacher == "cached":  # computed in other batches: equal to rounding
        assert logged(ours, "safety_loss")[0] == pytest.approx(0.0, abs=1e-20)
        assert relative_difference(moved, plain) < 1e-10
    else:
        assert logged(ours, "safety_loss")[0] == 0.0
        assert_same(moved, plain)
    assert logged(ours, "loss")[0] == pytest.approx(logged(theirs, "loss")[0], abs=1e-6)


@pytest.mark.parametrize("method", ALL)
def test_the_term_moves_the_weights_and_stays_finite(tmp_path, method):
    ours = make_trainer(tmp_path, method, safety_weight=1.0, max_steps=3)
    moved = update(ours)
    plain = update(make_trainer(tmp_path, method, cls=SFTTrainer, max_steps=3))
    assert all(torch.isfinite(value).all() for value in moved.values())
    assert any(not torch.equal(moved[name], plain[name]) for name in moved)
    for name in ("task_loss", "safety_loss", f"safety/{method}"):
        assert len(logged(ours, name)) == 3
    assert logged(ours, "loss") == pytest.approx(
        [t + s for t, s in zip(logged(ours, "task_loss"), logged(ours, "safety_loss"), strict=True)], rel=1e-4
    )


@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
@pytest.mark.parametrize("joined", [True, False], ids=["joined", "apart"])
@pytest.mark.parametrize("method", ALL)
def test_gradient_checkpointing_does_not_change_the_update(tmp_path, monkeypatch, method, joined, reentrant):
    join(monkeypatch, joined)
    plain = make_trainer(tmp_path, method, safety_weight=1.0)
    checkpointed = make_trainer(
        tmp_path,
        method,
        safety_weight=1.0,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": reentrant},
    )
    assert relative_difference(update(checkpointed), update(plain)) < 1e-5


@pytest.mark.parametrize("method", REPLAYING)
@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
def test_joined_equals_apart_equals_padding_free(tmp_path, monkeypatch, method, peft):
    updates = []
    for value, config in ((True, {}), (False, {}), (True, {"padding_free": True})):
        join(monkeypatch, value)
        trainer = make_trainer(tmp_path, method, peft=peft, safety_weight=1.0, max_length=None, max_steps=1, **config)
        move_off_the_anchor(trainer)
        updates.append(update(trainer))
    assert relative_difference(updates[1], updates[0]) < 1e-5
    assert relative_difference(updates[2], updates[0]) < 1e-5


@pytest.mark.parametrize("method", ALL)
def test_evaluation_loss_is_the_task_loss(tmp_path, method):
    ours = make_trainer(tmp_path, method, safety_weight=1.0)
    theirs = make_trainer(tmp_path, method, cls=SFTTrainer)
    rows = task_rows(5)
    assert ours.evaluate(rows)["eval_loss"] == theirs.evaluate(rows)["eval_loss"]


@pytest.mark.parametrize(("method", "peft"), WITH_PEFT)
def test_resume_equals_uninterrupted(tmp_path, method, peft):
    config = {"safety_weight": 1.0, "max_steps": 4, "optim": "adamw_torch", "learning_rate": 0.01, "peft": peft}
    whole = make_trainer(tmp_path / "whole", method, **config)
    whole.train()
    first = make_trainer(tmp_path / "parts", method, **config | {"save_strategy": "steps", "save_steps": 2})
    first.train()
    second = make_trainer(tmp_path / "parts", method, **config)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert_same(trained_weights(second), trained_weights(whole), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ANYWHERE)
def test_a_trained_adapter_is_its_own_anchor(tmp_path, method):
    """Tuning an adapter further: the aligned model is the base with that adapter, not the base alone."""
    from peft import get_peft_model

    model = get_peft_model(make_model(), lora())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    trainer = make_trainer(tmp_path, method, model=model, peft=False, safety_weight=1.0, max_steps=1)
    trainer.train()
    if method in ZERO_AT_ANCHOR:
        assert logged(trainer, "safety_loss")[0] == pytest.approx(0.0, abs=1e-6)  # float32 rounding of the kernel
