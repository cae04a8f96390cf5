"""EMA in the trainer: against a hand-rolled loop, through checkpoints, and in what is saved."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import SFTTrainer

from tests.conftest import (
    assert_same,
    logged,
    make_model,
    make_tokenizer,
    make_trainer,
    relative_difference,
    task_rows,
    trained_weights,
)

STEPS = {"max_steps": 5, "optim": "adamw_torch", "learning_rate": 0.01}


class HandRolled(TrainerCallback):
    """average ← d·average + (1 − d)·weights, d = min(decay, (1 + n) / (10 + n)) in warm-up, written out."""

    def __init__(self, trainer, decay: float, warmup: bool):
        self.average, self.decay, self.warmup, self.n = trained_weights(trainer), decay, warmup, 0

    def on_step_end(self, args, state, control, model, **kwargs):
        d = min(self.decay, (1 + self.n) / (10 + self.n)) if self.warmup else self.decay
        for name, parameter in model.named_parameters():
            if name in self.average:
                self.average[name] = d * self.average[name] + (1 - d) * parameter.detach()
        self.n += 1


@pytest.mark.parametrize("warmup", [True, False], ids=["warm-up", "no warm-up"])
@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
def test_equals_a_hand_rolled_loop_and_leaves_training_alone(tmp_path, peft, warmup):
    ema = make_trainer(tmp_path, "ema", peft=peft, ema_decay=0.3, ema_warmup=warmup, **STEPS)
    loop = HandRolled(ema, 0.3, warmup)
    ema.add_callback(loop)
    ema.train()
    plain = make_trainer(tmp_path, "ema", peft=peft, cls=SFTTrainer, **STEPS)
    plain.train()
    trained = trained_weights(ema)
    assert_same(trained, trained_weights(plain))
    with ema.deployed(), ema.deployed():
        assert relative_difference(trained_weights(ema), loop.average) < 1e-6
    assert_same(trained_weights(ema), trained)


def test_the_saved_model_is_the_average_and_the_checkpoint_is_not(tmp_path):
    trainer = make_trainer(tmp_path, "ema", **STEPS | {"save_strategy": "steps", "save_steps": 5})
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    with trainer.deployed():
        average = trained_weights(trainer)
    saved, checkpoint = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "final", tmp_path / "checkpoint-5")
    )
    key = next(iter(saved))
    name = key.replace(".weight", ".default.weight")
    assert torch.equal(saved[key], average[name])
    assert torch.equal(checkpoint[key], trained_weights(trainer)[name])


def test_resume_equals_uninterrupted(tmp_path):
    whole = make_trainer(tmp_path / "whole", "ema+l2", **STEPS)
    whole.train()
    make_trainer(tmp_path / "parts", "ema+l2", **STEPS | {"save_strategy": "steps", "save_steps": 2}).train()
    second = make_trainer(tmp_path / "parts", "ema+l2", **STEPS)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    with whole.deployed(), second.deployed():
        assert relative_difference(trained_weights(second), trained_weights(whole)) < 1e-6


@pytest.mark.parametrize("average", [True, False])
def test_evaluation_uses_the_average_unless_told_otherwise(tmp_path, average):
    trainer = make_trainer(tmp_path, "ema", ema_evaluate=average, **STEPS)
    trainer.train()
    plain = trainer.__class__.__mro__[1].evaluate(trainer, task_rows(5))["eval_loss"]
    assert (trainer.evaluate(task_rows(5))["eval_loss"] == plain) is not average


def test_the_best_checkpoint_brings_its_average(tmp_path):
    config = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(
        tmp_path,
        "ema",
        evaluation=task_rows(4),
        **STEPS | config | {"load_best_model_at_end": True, "save_total_limit": 5, "learning_rate": 5.0},
    )
    trainer.train()
    best = load_file(trainer.state.best_model_checkpoint + "/safety_state.safetensors")
    with trainer.deployed():
        for name, value in trained_weights(trainer).items():
            assert torch.equal(value, best[f"ema.{name}"])


def test_composes_and_takes_no_weight(tmp_path):
    trainer = make_trainer(tmp_path, "der+ema+l2", safety_weight="0.5+0.25", ema_on_cpu=True, **STEPS)
    assert [weight for _, weight in trainer.args.safety_terms] == [0.5, 0.0, 0.25]
    trainer.train()
    assert logged(trainer, "safety/der")
    with pytest.raises(ValueError, match="has 1 weights for the 0 terms"):
        make_trainer(tmp_path, "ema", safety_weight=1.0)


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_merge_after_training(tmp_path, method):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    source = tmp_path / "aligned"
    make_model().save_pretrained(source)
    make_tokenizer().save_pretrained(source)
    trainer = make_trainer(
        tmp_path / "out", "der", model=str(source), merge_after_training=method, merge_weight=0.25, **STEPS
    )
    trainer.train()
    merged = tmp_path / "out" / "merged"
    ids = torch.tensor([[1, 9, 20, 30]])
    base = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        if method == "linear":  # the adapter, rescaled: a quarter of B
            logits = PeftModel.from_pretrained(base, merged)(ids).logits
            for name, parameter in trainer.model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(0.25)
            torch.testing.assert_close(logits, trainer.model(ids).logits, rtol=1e-4, atol=1e-4)
        else:  # a full model, between the two
            logits = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
            assert not torch.allclose(logits, base(ids).logits)
            assert not torch.allclose(logits, trainer.model(ids).logits)


def test_safe_lora_after_training(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for seed, name in enumerate(("aligned", "base")):
        make_model(seed).save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
    merges = {"merge_after_training": "safe_lora", "merge_base": str(tmp_path / "base"), "merge_threshold": 1.0}
    trainer = make_trainer(tmp_path / "out", "none", model=str(tmp_path / "aligned"), **merges, **STEPS)
    trainer.train()
    tuned, merged = (load_file(tmp_path / "out" / at / "adapter_model.safetensors") for at in (".", "merged"))
    assert {key for key in tuned if not torch.equal(tuned[key], merged[key])} == {k for k in tuned if "lora_B" in k}
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "aligned"), tmp_path / "out" / "merged")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge_after_training": "safe_lora"}, r"`safe_lora` needs the model before .* `merge_base` is not given"),
        ({"merge_base": "b"}, r"`merge_base='b'` has no effect. Set `merge_after_training`"),
        ({"merge_after_training": "slerp", "merge_base": "b"}, r"`merge_base='b'` is not read by `slerp`"),
        (
            {"merge_after_training": "safe_lora", "merge_base": "b", "merge_weight": 0.5},
            r"`merge_weight=0.5` is not read by `safe_lora`. Give `merge_threshold`",
        ),
        (
            {"merge_after_training": "magmax", "merge_base": "b", "merge_threshold": 0.5},
            "`merge_threshold=0.5` is not",
        ),
        ({"merge_after_training": "safemerge", "merge_base": "b"}, "`merge_safe` is not given"),
    ],
)
def test_what_a_merge_after_training_lacks_or_does_not_read(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, "none", **settings)


def test_a_base_that_is_the_aligned_model_or_is_not_there_is_refused_before_training(tmp_path):
    make_model().save_pretrained(tmp_path / "aligned")
    make_tokenizer().save_pretrained(tmp_path / "aligned")
    model = str(tmp_path / "aligned")
    for base, error in ((model, ValueError), (str(tmp_path / "no"), FileNotFoundError)):
        with pytest.raises(error, match=r"is that model|does not exist"):
            make_trainer(tmp_path / "out", "none", model=model, merge_after_training="magmax", merge_base=base)


def test_a_merge_without_a_source_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"needs the aligned model on disk"):
        make_trainer(tmp_path, "none", merge_after_training="linear")
    with pytest.raises(ValueError, match=r"`merge_weight=0.3` has no effect"):
        make_trainer(tmp_path, "none", merge_weight=0.3)
