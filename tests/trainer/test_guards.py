"""Protection that did not run does not look like protection: terms, finite numbers, the anchor, checkpoints."""

import json
import re
from dataclasses import dataclass

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.nn import functional as F
from transformers import TrainerCallback
from trl import SFTConfig

from safe_sft import SafeSFTTrainer
from safe_sft.methods import METHODS
from safe_sft.models.finite import first_bad_tensor
from safe_sft.trainer.checkpoints import checkpoint_of, newest_checkpoint
from safe_sft.trainer.origin import ORIGIN_FILE
from tests.conftest import (
    assert_same,
    logged,
    lora,
    make_config,
    make_model,
    make_tokenizer,
    make_trainer,
    safety_rows,
    task_rows,
    trained_weights,
)


def own_trainer(folder, loss, method="der", **config):
    cls = type("Own", (SafeSFTTrainer,), {"compute_loss": loss})
    return cls(
        make_model(),
        make_config(folder, safety_method=method, **config),
        train_dataset=task_rows(),
        processing_class=make_tokenizer(),
        peft_config=lora(),
        safety_dataset=safety_rows(),
    )


def plain(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    assert set(inputs) <= {"input_ids", "attention_mask", "labels"}, "no key of ours reaches the model"
    labels = inputs.pop("labels")
    logits = model(**inputs).logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100)


def doubled(self, *args, **kwargs):
    return 2 * SafeSFTTrainer.compute_loss(self, *args, **kwargs)


@pytest.mark.parametrize("method", ["der", "er", "l2", "lwf", "der+l2"])
def test_a_loss_that_leaves_the_term_out_stops_the_first_step(tmp_path, method):
    trainer = own_trainer(tmp_path, plain, method)
    before = trained_weights(trainer)
    with pytest.raises(RuntimeError, match=f"`{method.split('+')[0]}` was not computed in step 1.*super"):
        trainer.train()
    assert_same(trained_weights(trainer), before)


def test_it_is_found_in_the_step_that_lacks_it(tmp_path):
    def loss(self, *args, **kwargs):
        skip = self.state.global_step == 2 and self.model.training
        return plain(self, *args[:2]) if skip else SafeSFTTrainer.compute_loss(self, *args, **kwargs)

    with pytest.raises(RuntimeError, match="in step 3"):
        own_trainer(tmp_path, loss, max_steps=4).train()


def test_a_term_that_gives_nothing_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(METHODS["l2"], "loss", lambda self, step: None)
    with pytest.raises(RuntimeError, match="`l2` was not computed in step 1"):
        make_trainer(tmp_path, "l2").train()


def thrown_away(self, model, inputs, *args, **kwargs):
    own = plain(self, model, {name: value for name, value in inputs.items() if name != "safety_micro_step"})
    SafeSFTTrainer.compute_loss(self, model, inputs)
    return own


def detached(self, model, inputs, *args, **kwargs):
    copy = {name: value for name, value in inputs.items() if name != "safety_micro_step"}
    return plain(self, model, copy) + SafeSFTTrainer.compute_loss(self, model, inputs).detach()


@pytest.mark.parametrize("method", ["der", "l2", "lwf", "er+l2"])
@pytest.mark.parametrize("loss", [thrown_away, detached])
def test_a_term_whose_gradient_is_thrown_away_stops_the_first_step(loss, method, tmp_path):
    trainer = own_trainer(tmp_path, loss, method, gradient_accumulation_steps=2)
    before = trained_weights(trainer)
    with pytest.raises(RuntimeError, match=r"step 1, and their gradient never reached the weights.*super"):
        trainer.train()
    assert_same(trained_weights(trainer), before)


@pytest.mark.parametrize("method", ["der", "l2", "lwf", "agem"])
def test_weights_unfrozen_under_the_aligned_model_stop_before_the_first_step(tmp_path, method):
    trainer = make_trainer(tmp_path, method)
    trainer.model.base_model.model.lm_head.weight.requires_grad_(True)
    before = trained_weights(trainer)
    with pytest.raises(ValueError, match=r"lm_head.*Unfreeze them before you make the trainer"):
        trainer.train()
    assert_same(trained_weights(trainer), before)


class Overwrite(TrainerCallback):
    """Writes into weights whose names hold a word, after a step."""

    def __init__(self, word, step=1):
        self.word, self.step = word, step

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step == self.step:
            for name, weight in model.named_parameters():
                if self.word in name:
                    weight.data.mul_(1.5)


@pytest.mark.parametrize("method", ["der", "l2", "lwf", "agem"])
@pytest.mark.parametrize("logging", [{}, {"logging_strategy": "no", "save_strategy": "steps", "save_steps": 1}])
def test_an_aligned_model_that_is_overwritten_stops_the_run(method, logging, tmp_path):
    trainer = make_trainer(tmp_path, method, max_steps=3, **logging)
    trainer.add_callback(Overwrite("embed_tokens"))
    with pytest.raises(ValueError, match=r"'.*embed_tokens.*' is frozen, and something has changed it"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_writing_into_what_is_trained_is_nobodys_fault(tmp_path):
    for method, word in [("der", "lora_A"), ("none", "embed_tokens")]:
        trainer = make_trainer(tmp_path / method, method, max_steps=2)
        trainer.add_callback(Overwrite(word))
        assert trainer.train().global_step == 2


def test_weights_frozen_later_and_plain_training_are_nobodys_fault(tmp_path):
    trainer = make_trainer(tmp_path / "none", "none", max_steps=1)
    trainer.model.base_model.model.lm_head.weight.requires_grad_(True)
    assert trainer.train().global_step == 1
    trainer = make_trainer(tmp_path / "der", "der", max_steps=1)
    next(weight for weight in trainer.model.parameters() if weight.requires_grad).requires_grad_(False)
    assert trainer.train().global_step == 1


def test_a_loss_that_calls_ours_trains(tmp_path):
    trainer = own_trainer(tmp_path, doubled, gradient_accumulation_steps=2)
    trainer.train()
    assert len(logged(trainer, "safety/der")) == 2


class Spoil(TrainerCallback):
    """Makes a weight infinite, or too large for its square, before a step."""

    def __init__(self, step, value):
        self.step, self.value = step, value

    def on_step_begin(self, args, state, control, model=None, **_):
        if state.global_step + 1 == self.step:
            weight = next(p for name, p in model.named_parameters() if "lora_A" in name)
            with torch.no_grad():
                weight[0, 0] = self.value


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path, clip):
    trainer = make_trainer(tmp_path, max_steps=4, save_strategy="steps", save_steps=1, max_grad_norm=clip)
    trainer.add_callback(Spoil(3, float("nan")))
    with pytest.raises(FloatingPointError, match=r"step 3: .*not finite.*last good checkpoint is .*checkpoint-2\."):
        trainer.train()
    assert trainer.state.global_step == 2
    assert newest_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize(("weight", "rate"), [("1e300", 0.01), (None, 1e38)])
def test_settings_that_blow_up_are_named(tmp_path, weight, rate):
    config = {"safety_weight": weight} if weight else {}
    trainer = make_trainer(tmp_path, learning_rate=rate, max_steps=6, **config)
    with pytest.raises(FloatingPointError, match=r"Training stopped in step .*Lower `learning_rate`"):
        trainer.train()
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_the_term_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(METHODS["l2"], "penalty", lambda self: torch.tensor(float("inf")))
    with pytest.raises(FloatingPointError, match="step 1: l2 is not finite"):
        make_trainer(tmp_path, "der+l2").train()


def test_weights_are_looked_at_before_they_are_saved(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    with torch.no_grad():
        next(p for p in trainer.model.parameters() if p.requires_grad)[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match="weights of the tuned model are not finite"):
        trainer.save_model()
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_an_aligned_model_that_is_not_finite_is_refused(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    with pytest.raises(FloatingPointError, match=r"of the aligned model are .*layers\.1\.mlp\.up_proj"):
        make_trainer(tmp_path, model=model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_finiteness(dtype, bad):
    model = torch.nn.Module()
    tensors = {
        "large": torch.full((300, 300), 6e4, dtype=dtype),
        "empty": torch.empty(0),
        "packed": torch.ones(2).byte(),
    }
    for name, tensor in tensors.items():
        model.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    assert first_bad_tensor(model) is None
    model.register_parameter("bad", torch.nn.Parameter(torch.tensor([1.0, bad], dtype=dtype)))
    assert first_bad_tensor(model) == "bad"


def checkpointed_run(folder, method="der", **config):
    trainer = make_trainer(folder, method, save_strategy="steps", save_steps=1, max_steps=3, **config)
    trainer.train()
    return trainer


@pytest.mark.parametrize("method", ["der", "l2", "er"])
def test_another_aligned_model_is_refused_on_resume(tmp_path, method):
    checkpointed_run(tmp_path, method)
    checkpoint = tmp_path / "checkpoint-1"
    loaded = PeftModel.from_pretrained(make_model(), str(checkpoint), is_trainable=True)
    trainer = make_trainer(tmp_path, method, model=loaded, peft=False, max_steps=3)
    with pytest.raises(ValueError, match="trained from another aligned model"):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(ValueError, match="trained from another aligned model"):
        make_trainer(tmp_path, method, model=make_model(seed=1), max_steps=3).train(str(checkpoint))


def test_other_rows_and_another_seed_are_said(tmp_path, caplog):
    checkpointed_run(tmp_path)
    trainer = make_trainer(tmp_path, train=task_rows(12), safety=safety_rows(5), seed=8, max_steps=2)
    with caplog.at_level("WARNING"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert all(
        f"This run has other {what}" in caplog.text for what in ("random numbers", "training rows", "safety rows")
    )


def test_a_resume_from_the_same_says_nothing(tmp_path, caplog):
    whole = checkpointed_run(tmp_path / "a")
    with caplog.at_level("WARNING"):
        half = make_trainer(tmp_path / "b", max_steps=3)
        half.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-1"))
    assert "This run" not in caplog.text
    assert_same(trained_weights(half), trained_weights(whole))


@pytest.mark.parametrize("left", [0, 20])
@pytest.mark.parametrize("name", ["trainer_state.json", "adapter_model.safetensors"])
def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path, caplog, name, left):
    checkpointed_run(tmp_path)
    path = tmp_path / "checkpoint-3" / name
    path.write_bytes(path.read_bytes()[:left])
    with caplog.at_level("WARNING"):
        trainer = make_trainer(tmp_path, max_steps=3)
        trainer.train(resume_from_checkpoint=True)
    assert f"checkpoint-3 is incomplete ({name} is damaged)" in caplog.text
    assert trainer.state.global_step == 3
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        make_trainer(tmp_path, max_steps=3).train(resume_from_checkpoint=str(path.parent))


@pytest.mark.parametrize("asked", ["true", "True", True])
def test_one_function_decides_which_checkpoint_is_taken(tmp_path, asked):
    checkpointed_run(tmp_path)
    assert checkpoint_of(asked, str(tmp_path)) == str(tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3" / "trainer_state.json").unlink()
    assert checkpoint_of(asked, str(tmp_path)) == str(tmp_path / "checkpoint-2")
    assert checkpoint_of("false", str(tmp_path)) is None
    assert make_trainer(tmp_path, max_steps=3).train(resume_from_checkpoint=asked).global_step == 3


def test_the_average_is_written_before_the_state(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, "ema", save_strategy="steps", save_steps=1, max_steps=2)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.trainer.Trainer._save_optimizer_and_scheduler", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert {"safety_state.safetensors", ORIGIN_FILE} <= {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert newest_checkpoint(str(tmp_path)) is None


def test_a_lost_optimizer_is_said(tmp_path, caplog):
    checkpointed_run(tmp_path)
    (tmp_path / "checkpoint-2" / "optimizer.pt").unlink()
    with caplog.at_level("WARNING"):
        make_trainer(tmp_path, max_steps=3).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert "holds no state of the optimizer" in caplog.text


@pytest.mark.parametrize("spelling", ["aligned", "./aligned", "../{}/aligned", "link"])
def test_the_aligned_model_is_not_overwritten(tmp_path, monkeypatch, spelling):
    make_model().save_pretrained(tmp_path / "aligned")
    make_tokenizer().save_pretrained(tmp_path / "aligned")
    (tmp_path / "link").symlink_to(tmp_path / "aligned")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="would overwrite the aligned model"):
        make_trainer(spelling.format(tmp_path.name), model=str(tmp_path / "aligned"))


def test_a_folder_that_no_merge_wrote_is_kept(tmp_path):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="which no merge has written"):
        make_trainer(tmp_path, merge_after_training="linear")


@dataclass
class Project(SFTConfig):
    owner: str = "us"


def test_a_derived_configuration_is_taken(tmp_path):
    args = Project(str(tmp_path), use_cpu=True, bf16=False, report_to="none", owner="them")
    trainer = SafeSFTTrainer(
        make_model(), args, train_dataset=task_rows(), processing_class=make_tokenizer(), safety_dataset=safety_rows()
    )
    assert (trainer.args.owner, trainer.args.safety_method) == ("them", "der")


def test_an_adapter_with_a_name_is_merged(tmp_path):
    make_model().save_pretrained(tmp_path / "aligned")
    make_tokenizer().save_pretrained(tmp_path / "aligned")
    model = make_model()
    model.config._name_or_path = str(tmp_path / "aligned")
    model = get_peft_model(model, lora(), adapter_name="mine")
    trainer = make_trainer(tmp_path / "out", model=model, peft=False, merge_after_training="linear")
    trainer.train()
    merged = json.loads((tmp_path / "out" / "merged" / "merge_config.json").read_text())
    assert merged["tuned"].endswith("mine")


def test_a_term_of_weight_0_is_said_to_do_nothing(tmp_path, caplog):
    make_trainer(tmp_path, "der+l2", safety_weight="0+0.1")
    (line,) = [r.message for r in caplog.records if "safety_weight" in r.message]
    assert "`safety_weight` of `der` is 0: the term is computed and logged, and changes nothing." in line


AGREES = {"prompt": "bad", "completion": "Sure, here is what you asked for."}


def test_safety_rows_that_agree_are_named(tmp_path, caplog):
    trainer = make_trainer(tmp_path, safety=[*safety_rows(3), AGREES, {"prompt": "worse"}])
    trainer._tokenized_rows()
    assert "1 of the 4 answers of the safety rows open by agreeing, such as row 3 ('sure'), and do not" in caplog.text
    refuses = {"prompt": "bad", "completion": "Sure, I see why you ask, but I can't help with that."}
    with pytest.raises(ValueError, match=r"2 of the 3 answers .* such as row 1 .*would be kept, not the refusals"):
        make_trainer(tmp_path, safety=[refuses, AGREES, AGREES])
    chat = {"messages": [{"role": "user", "content": "bad"}, {"role": "assistant", "content": "Of course! First"}]}
    with pytest.raises(ValueError, match=r"1 of the 1 answers .* such as row 0 \('of course'\)"):
        make_trainer(tmp_path, safety=[chat])


@pytest.mark.parametrize("step", [2, 4])
def test_a_checkpoint_given_as_a_path_is_that_checkpoint_and_not_the_newest(step, tmp_path):
    for asked in (tmp_path / f"checkpoint-{number}" for number in (2, 4)):
        asked.mkdir(exist_ok=True)
        (asked / "trainer_state.json").write_text(json.dumps({"global_step": 2}))
    wanted = tmp_path / f"checkpoint-{step}"
    assert checkpoint_of(wanted, str(tmp_path)) == str(wanted)


@pytest.mark.parametrize(
    ("method", "changed", "said"),
    [
        ("der", {"safety_weight": 0.01}, r"safety_weight=\[0.01\].*\[3.0\]"),
        ("er", {}, "safety_method='er'.*'der'"),
        ("none", {}, "was trained with `safety_method='der'`.*nothing is protected from here on"),
        ("der", {"replay_ratio": 1.0}, "replay_ratio=1.0.*0.25"),
        ("der", {}, None),
    ],
)
def test_other_protection_on_resume_is_said(method, changed, said, tmp_path, caplog):
    make_trainer(tmp_path / "one", save_strategy="steps", save_steps=1, max_steps=1).train()
    caplog.clear()
    safety = {} if method != "none" else {"safety": []}
    resumed = make_trainer(tmp_path / "two", method, max_steps=2, **changed, **safety)
    resumed.train(resume_from_checkpoint=tmp_path / "one" / "checkpoint-1")
    warned = [record.getMessage() for record in caplog.records if "checkpoint-1" in record.getMessage()]
    assert len(logged(resumed, "task_loss" if method != "none" else "loss")) == 2
    if said is None:
        assert not warned
    else:
        assert any(re.search(said, message) for message in warned), warned
