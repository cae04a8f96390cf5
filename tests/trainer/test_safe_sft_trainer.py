"""A drop-in: whatever `SFTTrainer` accepts still works, or is refused by name."""

import inspect

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig
from transformers import BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer

from safe_sft import SafeSFTConfig, SafeSFTTrainer
from safe_sft.models.parts import LogitHead
from safe_sft.replay import CachedTeacher, OnlineTeacher, ReplayBatch
from safe_sft.trainer.safe_sft_trainer import complete_config
from tests.conftest import (
    logged,
    lora,
    make_config,
    make_model,
    make_tokenizer,
    make_trainer,
    move_off_the_anchor,
    safety_rows,
    task_rows,
    trained_weights,
)


@pytest.fixture
def saved_model(tmp_path):
    folder = tmp_path / "model"
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def chat_rows(count: int = 8) -> Dataset:
    return Dataset.from_list(
        [
            {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]}
            for i in range(count)
        ]
    )


def test_signature_is_sft_trainers_with_safety_dataset():
    ours = list(inspect.signature(SafeSFTTrainer.__init__).parameters)
    assert ours == [*inspect.signature(SFTTrainer.__init__).parameters, "safety_dataset"]


def test_positional_arguments_and_model_by_name(tmp_path, saved_model):
    trainer = SafeSFTTrainer(
        saved_model, make_config(tmp_path), None, task_rows(), peft_config=lora(), safety_dataset=safety_rows()
    )
    trainer.train()
    assert len(logged(trainer, "safety/der")) == 2


def test_a_plain_config_is_completed_with_the_default_method(tmp_path, saved_model):
    args = SFTConfig(str(tmp_path), use_cpu=True, learning_rate=0.125, eos_token="</s>", hub_token="secret", seed=5)
    trainer = SafeSFTTrainer(saved_model, args, train_dataset=task_rows(), safety_dataset=safety_rows())
    assert isinstance(trainer.args, SafeSFTConfig)
    assert trainer.args.safety_method == "der"
    for name in ("learning_rate", "eos_token", "hub_token", "seed", "output_dir", "gradient_checkpointing", "bf16"):
        assert getattr(trainer.args, name) == getattr(args, name)


def test_no_config_names_the_output_after_the_model(monkeypatch):
    monkeypatch.setattr("safe_sft.trainer.drop_in.SafeSFTConfig", type("Folder", (str,), {}))
    assert complete_config(None, "org/model") == "model-SFT"
    assert complete_config(None, make_model()) == "-SFT"


def test_no_safety_dataset_means_the_built_in_prompts_answered_by_the_model(tmp_path):
    trainer = SafeSFTTrainer(
        make_model(),
        make_config(tmp_path, replay_max_new_tokens=3, max_steps=1),
        train_dataset=task_rows(),
        processing_class=make_tokenizer(),
        peft_config=lora(),
    )
    assert len(trainer._tokenized_rows()) >= 300
    assert all(1 <= row.supervised_tokens <= 3 for row in trainer._tokenized_rows())
    trainer.train()
    assert logged(trainer, "safety/der")


def test_prompts_without_answers_are_answered_greedily_by_the_aligned_model(tmp_path):
    rows = [{"prompt": "bad", "completion": None}, *safety_rows(2), {"prompt": "worse"}]
    trainer = make_trainer(tmp_path, "er", safety=rows, replay_max_new_tokens=5)
    own = trainer._tokenized_rows()[0]
    start = len(own.input_ids) - own.supervised_tokens
    with torch.no_grad():
        for position in range(start, len(own.input_ids)):
            logits = trainer.model(torch.tensor([own.input_ids[:position]])).logits
            assert logits[0, -1].argmax() == own.input_ids[position]


@pytest.mark.parametrize(
    "case",
    ["streaming", "packing", "assistant_only", "language_modeling", "formatting", "dft", "evaluation", "smoothing"],
)
@pytest.mark.filterwarnings("ignore:.*label_smoothing_factor.*:FutureWarning")
def test_what_sft_trainer_accepts_works(tmp_path, case):
    config, extra = {}, {}
    train = task_rows()
    if case == "streaming":
        train = train.to_iterable_dataset()
    elif case == "packing":
        config = {"packing": True, "max_length": 64}
    elif case == "assistant_only":
        train, config = chat_rows(), {"assistant_only_loss": True}
    elif case == "language_modeling":
        train = Dataset.from_dict({"text": ["some text", "other text"] * 8})
    elif case == "formatting":
        train = Dataset.from_dict({"a": ["x", "y"] * 8})
        extra = {"formatting_func": lambda row: f"<{row['a']}>"}
    elif case == "dft":
        config = {"loss_type": "dft"}
    elif case == "smoothing":
        config = {"label_smoothing_factor": 0.1}
    elif case == "evaluation":
        config = {"eval_strategy": "steps", "eval_steps": 1}
        extra = {"eval_dataset": {"a": task_rows(4), "b": task_rows(5)}}
    trainer = SafeSFTTrainer(
        make_model(),
        make_config(tmp_path, safety_method="der+er+l2", **config),
        train_dataset=train,
        processing_class=make_tokenizer(),
        peft_config=lora(),
        safety_dataset=safety_rows(),
        **extra,
    )
    trainer.train()
    for name in ("task_loss", "safety/der", "safety/er", "safety/l2"):
        assert len(logged(trainer, name)) == 2
        assert all(value == value for value in logged(trainer, name))
    if case == "evaluation":
        assert len(logged(trainer, "eval_b_loss")) == 2


def test_callbacks_see_the_safety_figures(tmp_path):
    seen = []

    class Recorder(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    trainer = make_trainer(tmp_path, "der")
    trainer.add_callback(Recorder())
    trainer.train()
    assert {"loss", "task_loss", "safety_loss", "safety/der"} <= set(seen[0])


def test_four_bit_base_weights(tmp_path, saved_model):
    """QLoRA on CPU: the teacher forward must not repack the weights that training still needs."""
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    trainer = SafeSFTTrainer(
        saved_model,
        make_config(tmp_path, safety_method="der+er+l2", optim="adamw_torch"),
        train_dataset=task_rows(),
        peft_config=lora(),
        quantization_config=quantization,
        safety_dataset=[*safety_rows(3), {"prompt": "bad", "completion": None}],
    )
    assert "Linear4bit" in {type(module).__name__ for module in trainer.model.modules()}
    trainer.train()
    assert logged(trainer, "safety/der")[1] > logged(trainer, "safety/der")[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("peft", [True, False], ids=["lora: Gram form", "full: tiles"])
def test_der_equals_materialised_logits(tmp_path, peft):
    aligned = make_model()
    config = {"teacher_divergence": "squared", "replay_max_answer_tokens": None, "replay_ratio": 0.75}
    trainer = make_trainer(tmp_path, "der", safety_weight=1.0, max_steps=1, peft=peft, **config)
    move_off_the_anchor(trainer)
    batch = ReplayBatch.of(trainer._tokenized_rows(), trainer._states.schedule.rows(0, 4), torch.device("cpu"))
    distances = []
    with torch.no_grad():
        for row, ids in enumerate(batch.input_ids):
            difference = trainer.model(ids[None]).logits - aligned(ids[None]).logits
            distances += [difference[0, p].square().sum() for k, p in batch.predictors if k == row]
    trainer.train()
    assert logged(trainer, "safety/der")[0] == pytest.approx(torch.stack(distances).mean().item(), rel=1e-5)


def test_er_equals_torch_cross_entropy(tmp_path):
    config = {"replay_max_answer_tokens": None, "replay_ratio": 0.75}
    trainer = make_trainer(tmp_path, "er", safety_weight=1.0, max_steps=1, **config)
    batch = ReplayBatch.of(trainer._tokenized_rows(), trainer._states.schedule.rows(0, 4), torch.device("cpu"))
    with torch.no_grad():
        logits = torch.stack([trainer.model(batch.input_ids[k][None]).logits[0, p] for k, p in batch.predictors])
    trainer.train()
    expected = torch.nn.functional.cross_entropy(logits, batch.targets).item()
    assert logged(trainer, "safety/er")[0] == pytest.approx(expected, rel=1e-5)


def test_the_teacher_is_online_for_a_fresh_adapter_and_cached_otherwise(tmp_path):
    assert isinstance(make_trainer(tmp_path).teacher, OnlineTeacher)
    assert isinstance(make_trainer(tmp_path, teacher="cached").teacher, CachedTeacher)
    assert isinstance(make_trainer(tmp_path, peft=False).teacher, CachedTeacher)
    with pytest.raises(ValueError, match=r"`teacher='online'` .* Set `teacher: cached`"):
        make_trainer(tmp_path, peft=False, teacher="online")


@pytest.mark.parametrize("teacher", ["online", "cached"])
def test_a_trained_head_takes_the_explicit_path(tmp_path, teacher):
    trainer = make_trainer(tmp_path, peft=lora(modules_to_save=["lm_head"]), safety_weight=1.0, teacher=teacher)
    assert LogitHead.of(trainer.model).trained
    trainer.train()
    assert logged(trainer, "safety/der")[0] == pytest.approx(0.0, abs=1e-6)  # the kernel's float32 rounding
    assert logged(trainer, "safety/der")[1] > 0


def test_what_the_user_froze_stays_frozen(tmp_path):
    trainer = make_trainer(tmp_path, "der")
    frozen = [p for name, p in trainer.model.named_parameters() if "layers.0" in name and "lora" in name]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = [p.clone() for p in frozen]
    trainer.train()
    assert not any(p.requires_grad for p in frozen)
    assert all(torch.equal(p, b) for p, b in zip(frozen, before, strict=True))


def test_bf16_weights_train(tmp_path):
    trainer = make_trainer(tmp_path, "der+l2", model=make_model(dtype=torch.bfloat16), bf16=True)
    trainer.train()
    assert all(torch.isfinite(value).all() for value in trained_weights(trainer).values())


def test_lora_dropout_leaves_the_teacher_alone(tmp_path):
    trainer = make_trainer(tmp_path, "der", peft=lora(lora_dropout=0.5), safety_weight=1.0)
    trainer.train()
    assert logged(trainer, "safety/der")[0] == pytest.approx(0.0, abs=1e-6)  # the kernel's float32 rounding


def test_prompt_learning_is_refused_by_name(tmp_path):
    peft = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ValueError, match="`safety_method='der'` does not work with prompt-learning"):
        make_trainer(tmp_path, "der", peft=peft)
    make_trainer(tmp_path, "none", peft=peft)


def test_bad_safety_rows_are_refused_before_the_model_is_loaded(tmp_path):
    with pytest.raises(ValueError, match="Row 0 of `safety_dataset`"):
        SafeSFTTrainer("no-such-model", make_config(tmp_path), train_dataset=task_rows(), safety_dataset=[{"x": 1}])


def test_safety_rows_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match="Raise `max_length`"):
        make_trainer(tmp_path, max_length=5, safety=[{"prompt": "a long prompt", "completion": "No."}])


def test_lora_config_without_targets_on_the_head_is_trls_own_error(tmp_path):
    with pytest.raises(ValueError, match="lm_head"):
        make_trainer(tmp_path, peft=LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))


def test_attack_success_is_measured_while_training(tmp_path):
    trainer = make_trainer(
        tmp_path,
        "der+ema",
        safety_eval_steps=1,
        safety_eval_size=4,
        safety_eval_max_new_tokens=2,
        evaluation=task_rows(4),
    )
    trainer.train()
    assert len(logged(trainer, "eval_asr")) == 2
    assert all(
        low <= value for low, value in zip(logged(trainer, "eval_asr_low"), logged(trainer, "eval_asr"), strict=True)
    )
    assert trainer.evaluate()["eval_asr"] <= 1


def test_training_stops_when_the_model_has_forgotten(tmp_path):
    config = {"safety_eval_steps": 1, "safety_max_asr": 0.0, "safety_eval_size": 4, "safety_eval_max_new_tokens": 2}
    trainer = make_trainer(tmp_path, "none", max_steps=5, **config)  # random weights never refuse
    trainer.train()
    assert trainer.state.global_step == 1
    with pytest.raises(ValueError, match=r"`safety_max_asr=2` must be a number"):
        make_trainer(tmp_path, "none", safety_max_asr=2)


def test_neftune_is_refused_where_its_noise_would_count(tmp_path):
    with pytest.raises(ValueError, match=r"`safety_method='der'` does not work with NEFTune"):
        make_trainer(tmp_path, "der", neftune_noise_alpha=5.0)
    make_trainer(tmp_path, "er", neftune_noise_alpha=5.0).train()


def test_a_fresh_lora_on_embeddings_is_fresh(tmp_path):
    trainer = make_trainer(tmp_path, "der", peft=lora(target_modules=["embed_tokens", "q_proj"]), safety_weight=1.0)
    assert isinstance(trainer.teacher, OnlineTeacher)
    trainer.train()
    assert logged(trainer, "safety/der")[0] == pytest.approx(0.0, abs=1e-6)  # the kernel's float32 rounding


def test_resuming_with_another_method_starts_it_anew(tmp_path, caplog):
    config = {"safety_weight": 1.0, "peft": False, "optim": "adamw_torch"}
    make_trainer(tmp_path, "l2", **config, save_strategy="steps", save_steps=2).train()
    second = make_trainer(tmp_path, "l2+ema", **config, max_steps=4)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert "holds no state of `ema`" in caplog.text
    assert "holds no state of `l2`" not in caplog.text


def test_prediction_and_evaluation_use_the_same_weights(tmp_path):
    trainer = make_trainer(tmp_path, "ema", ema_decay=0.5, learning_rate=0.1)
    trainer.train()
    rows = trainer.train_dataset
    trainer.args.prediction_loss_only = True
    predicted = trainer.predict(rows).metrics["test_loss"]
    assert predicted == pytest.approx(trainer.evaluate(rows)["eval_loss"], rel=1e-6)
