"""The laws again over a 4-bit base (NF4, double quantisation), whose adapter is trained in bfloat16.

On CPU, bitsandbytes repacks 4-bit weights at the first forward in eval mode, and training afterwards raises: that
every method trains shows that none of its passes before training is in that mode.
"""

import pytest
from trl import SFTTrainer

from safe_sft import SafeSFTTrainer
from safe_sft.methods.registry import METHODS, method_classes
from tests.conftest import (
    assert_same,
    logged,
    make_model,
    make_tokenizer,
    make_trainer,
    move_off_the_anchor,
    nf4,
    relative_difference,
)
from tests.methods.test_contract import ALL, REPLAYING, ZERO_AT_ANCHOR, join, update


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model")
    make_model(hidden_size=64, intermediate_size=128, num_hidden_layers=1).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return str(path)


def make(tmp_path, method, model, **settings):
    trainer = make_trainer(tmp_path, method, model=model, quantization_config=nf4(), **settings)
    assert "Linear4bit" in {type(module).__name__ for module in trainer.model.modules()}
    return trainer


def test_none_is_plain_sft_bit_for_bit(tmp_path, folder):
    ours, theirs = (make(tmp_path, "none", folder, cls=cls) for cls in (SafeSFTTrainer, SFTTrainer))
    assert_same(update(ours), update(theirs))
    assert logged(ours, "loss") == logged(theirs, "loss")


@pytest.mark.parametrize("method", ALL)
def test_zero_weight_equals_plain_sft(tmp_path, monkeypatch, folder, method):
    join(monkeypatch, False)
    ours = make(tmp_path, method, folder, safety_weight=0.0)
    theirs = make(tmp_path, method, folder, cls=SFTTrainer)
    assert_same(update(ours), update(theirs))
    if method == "er":  # the term is computed, not skipped
        assert min(logged(ours, "safety/er")) > 0


@pytest.mark.parametrize(
    ("method", "teacher"),
    [(m, t) for m in ZERO_AT_ANCHOR for t in (["online", "cached"] if METHODS[m].needs_teacher else [None])],
)
def test_zero_at_the_anchor_and_then_not(tmp_path, folder, method, teacher):
    config = {"teacher": teacher} if teacher else {}
    trainer = make(tmp_path, method, folder, safety_weight=1.0, learning_rate=0.1, **config)
    trainer.train()
    first, second = logged(trainer, "safety_loss")
    assert first == pytest.approx(0.0, abs=1e-5)
    assert abs(second) > 10 * abs(first)


@pytest.mark.parametrize("method", [*ALL, "der++", "safegrad"])
def test_accumulation_does_not_change_the_update(tmp_path, folder, method):
    results = []
    for batch, steps in ((8, 1), (2, 4)):
        config = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_steps": 1}
        weights = [1.0] * len(method_classes(method))
        trainer = make(tmp_path, method, folder, safety_weight=weights, **config)
        move_off_the_anchor(trainer)
        results.append((update(trainer), logged(trainer, "safety_loss")))
    (one, one_loss), (four, four_loss) = results
    assert four_loss == pytest.approx(one_loss, rel=1e-3)
    assert relative_difference(four, one) < 0.05  # gradients are summed in bfloat16


@pytest.mark.parametrize("method", REPLAYING)
def test_joined_equals_apart(tmp_path, monkeypatch, folder, method):
    updates = []
    for value in (True, False):
        join(monkeypatch, value)
        trainer = make(tmp_path, method, folder, safety_weight=1.0, max_steps=1)
        move_off_the_anchor(trainer)
        updates.append(update(trainer))
    assert relative_difference(*updates) < 0.05
