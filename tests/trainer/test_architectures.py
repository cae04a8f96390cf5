"""Whatever way a model calls its backbone, `der` is what its own logits give, or it is refused before training."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from safe_sft import SafeSFTTrainer
from safe_sft.models.parts import backbone
from safe_sft.trainer.micro_steps import MicroStep
from tests.conftest import make_config, make_model, make_tokenizer, make_trainer, safety_rows, task_rows

_HEADS = {"num_hidden_layers": 2, "num_attention_heads": 2}
_GROUPED = {**_HEADS, "hidden_size": 32, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 48}
SMALL = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "gpt_neox": {**_HEADS, "hidden_size": 32, "intermediate_size": 48},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "falcon": {**_HEADS, "hidden_size": 32},
    "opt": {**_HEADS, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48},
    "gemma2": _GROUPED,
    "qwen3": _GROUPED,
    "recurrent_gemma": {
        **_GROUPED,
        "lru_width": 32,
        "block_types": ["recurrent", "attention"],
        "logits_soft_cap": 2.0,
    },
    "mixtral": {**_GROUPED, "num_local_experts": 2, "experts_implementation": "eager"},
}
STEP = MicroStep(0, 0, 1, task_rows=4)


def small(kind: str):
    set_seed(0)
    settings = {"vocab_size": 261, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings, **SMALL[kind]))


def trainer_of(model, folder, **kwargs) -> SafeSFTTrainer:
    squared = {"teacher_divergence": "squared", "replay_max_answer_tokens": None}
    args = make_config(folder, safety_method="der", max_steps=1, router_aux_loss_coef=0.0, **squared)
    rows = {"train_dataset": task_rows(), "safety_dataset": safety_rows()}
    return SafeSFTTrainer(model, args, processing_class=make_tokenizer(), **rows, **kwargs)


def term_from_logits(model, aligned, replay) -> torch.Tensor:
    """The mean over answers' tokens of the squared distance of logits, each row run alone."""
    distances = []
    for row, ids in enumerate(replay.input_ids):
        with torch.no_grad():
            before = aligned(input_ids=ids[None]).logits[0]
        after = model(input_ids=ids[None]).logits[0]
        distances += [(after[p] - before[p]).square().sum() for r, p in replay.predictors if r == row]
    return torch.stack(distances).sum() / len(distances)


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "apart"])
@pytest.mark.parametrize("kind", SMALL)
def test_der_and_its_gradient_are_those_of_the_models_own_logits(kind, joined, tmp_path):
    trainer = trainer_of(small(kind), tmp_path)
    model, states = trainer.model.eval(), trainer._states
    aligned = small(kind).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    replay = states.replay_batch(STEP)
    ids = torch.arange(20, 34).reshape(2, 7)
    own = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    with states.listening(replay if joined else None):
        carried = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    torch.testing.assert_close(carried, own, rtol=1e-4, atol=1e-4)
    (method,) = trainer._methods
    term = method.loss(states.context(STEP, states.of_replay(model, replay, joined), None, None, 1))
    expected = term_from_logits(model, aligned, replay)
    assert expected > 1e-3
    torch.testing.assert_close(term, expected, rtol=1e-4, atol=1e-5)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(term, parameters, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True, materialize_grads=True)
    scale = max(gradient.abs().max() for gradient in theirs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5 * float(scale))


def own_loss(outputs, labels, num_items_in_batch=None):
    logits = outputs.logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100)


@pytest.mark.filterwarnings("ignore:.*compute_loss_func:FutureWarning")
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_it_trains_with_a_loss_of_the_users_and_takes_its_hooks_away(kind, tmp_path):
    trainer = trainer_of(small(kind), tmp_path, compute_loss_func=own_loss)
    module = backbone(trainer.model)
    assert module._forward_hooks
    trainer.train()
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
    trainer.train()  # and has them again
    assert not module._forward_hooks


def test_a_backbone_that_the_forward_goes_around_is_refused_before_training(tmp_path, monkeypatch):
    model = make_model()
    hidden = model.model

    def around(self, input_ids=None, **kwargs):
        return hidden.forward(input_ids=input_ids)

    monkeypatch.setattr(type(model), "forward", around)
    with pytest.raises(
        ValueError, match=r"LlamaForCausalLM: its hidden states cannot be read \(.*No forward ran.*`l2`"
    ):
        make_trainer(tmp_path, model=model, method="er")


def test_rows_that_cannot_join_take_a_forward_of_their_own(tmp_path, monkeypatch):
    model = make_model()
    forward = type(model.model).forward

    def of_one_row(self, *args, **kwargs):
        if len(kwargs["input_ids"]) != 1:
            raise ValueError("one row at a time")
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(type(model.model), "forward", of_one_row)
        trainer = make_trainer(tmp_path, model=model, method="er")
    replay = trainer._states.replay_batch(STEP)
    shape = (4, replay.width)
    batch = {"input_ids": torch.ones(shape, dtype=torch.long), "attention_mask": torch.ones(shape)}
    assert not trainer._states.joins(batch, replay, False)
    assert make_trainer(tmp_path, method="er")._states.joins(batch, replay, False)


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_a_model_with_something_between_its_states_and_its_head_is_refused(kind, tmp_path):
    set_seed(0)
    sizes = {"vocab_size": 261, "hidden_size": 32, "intermediate_size": 48, "is_decoder": True, **_HEADS}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, pad_token_id=0))
    with pytest.raises(ValueError, match=r"its logits are not those of its head on its last hidden states.*`l2`"):
        trainer_of(model, tmp_path)


@pytest.mark.parametrize(("kind", "joins"), [("gpt2", True), ("bloom", False), ("opt", False)])
def test_replayed_rows_join_packed_ones_only_where_the_model_keeps_them_apart(kind, joins, tmp_path):
    model = small(kind)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    args = make_config(tmp_path, safety_method="der", max_steps=2, packing=True, max_length=64)
    rows = {"train_dataset": task_rows(), "safety_dataset": safety_rows()}
    trainer = SafeSFTTrainer(model, args, processing_class=make_tokenizer(), **rows)
    assert ("flattened" in trainer._states._joinable) is joins
    trainer.train()
    terms = [entry["safety/der"] for entry in trainer.state.log_history if "safety/der" in entry]
    assert abs(terms[0]) < 1e-5 < terms[1], "before the first update the model is the aligned one"
