"""The ways TRL trains, each with replay, distillation and a weight penalty at once: trains, or is refused by name."""

import pytest
import torch
from peft import (
    AdaLoraConfig,
    FourierFTConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    OFTConfig,
    VeraConfig,
    get_peft_model,
)
from transformers import (
    BitsAndBytesConfig,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from safe_sft.models.parts import LogitHead
from tests.conftest import logged, lora, make_model, make_tokenizer, make_trainer, move_off_the_anchor, safety_rows

EVERYTHING = "der+er+l2+lwf"
SIZES = {
    "vocab_size": 261,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
ARCHITECTURES = {
    "gemma2: capped logits": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=5.0, query_pre_attn_scalar=8)
    ),
    "cohere: scaled logits, tied head": lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=4.0)),
    "granite: divided logits": lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=4.0)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    "mixtral: experts with an auxiliary loss": lambda: MixtralForCausalLM(
        MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, router_aux_loss_coef=0.1)
    ),
}


def check(trainer, terms: str = EVERYTHING) -> None:
    """Two steps: 0 at the anchor where theory says so, and finite throughout."""
    trainer.train()
    for term in terms.split("+"):
        values = logged(trainer, f"safety/{term}")
        assert len(values) == 2
        assert all(torch.isfinite(torch.tensor(values)))
        if term != "er":
            assert values[0] == pytest.approx(0.0, abs=1e-6)
            assert values[1] > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(tmp_path, name):
    torch.manual_seed(0)
    targets = ["q_proj", "v_proj"] if "experts" in name else "all-linear"
    check(make_trainer(tmp_path, EVERYTHING, model=ARCHITECTURES[name](), peft=lora(target_modules=targets)))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "logits" in name])
def test_der_follows_the_architectures_own_logits(tmp_path, name):
    torch.manual_seed(0)
    model = ARCHITECTURES[name]()
    model.eval()
    row = safety_rows(1)
    squared = {"teacher_divergence": "squared", "replay_max_answer_tokens": None}
    trainer = make_trainer(tmp_path, "der", model=model, safety=row, safety_weight=1.0, max_steps=1, **squared)
    (tokenized,) = trainer._tokenized_rows()
    ids = torch.tensor([tokenized.input_ids])
    supervised = torch.tensor(tokenized.labels[1:]) != -100
    with torch.no_grad():
        aligned = trainer.model(ids).logits[0, :-1][supervised]
        move_off_the_anchor(trainer)
        moved = trainer.model(ids).logits[0, :-1][supervised]
    trainer.train()
    expected = (moved - aligned).square().sum(-1).mean().item()
    assert logged(trainer, "safety/der")[0] == pytest.approx(expected, rel=1e-4)
    assert LogitHead.of(model).softcap == (5.0 if "capped" in name else None)


@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
def test_tied_heads(tmp_path, peft):
    terms = EVERYTHING if peft else "der+er+l2"
    check(make_trainer(tmp_path, terms, model=make_model(tie_word_embeddings=True), peft=peft), terms)


def test_dora(tmp_path):
    check(make_trainer(tmp_path, EVERYTHING, peft=lora(use_dora=True), importance_space="adapter"))
    with pytest.raises(ValueError, match=r"Dora.*Set `importance_space: adapter`"):
        make_trainer(tmp_path, "l2", peft=lora(use_dora=True))


def test_rslora_and_modules_to_save(tmp_path):
    check(make_trainer(tmp_path, EVERYTHING, peft=lora(use_rslora=True, modules_to_save=["embed_tokens"])))


LAYER = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
ADAPTERS = {
    "one layer": lora(layers_to_transform=[1], target_modules=["q_proj"]),
    "ranks that differ": lora(rank_pattern={"q_proj": 8}, alpha_pattern={"v_proj": 3}),
    "layers used twice": lora(layer_replication=[[0, 2], [1, 2]]),
    "tokens": lora(trainable_token_indices=[3, 4]),
    "an embedding": lora(target_modules=["embed_tokens", "q_proj"]),
    "biases": lora(lora_bias=True),
    # Its factors begin near 0.02: at the usual scale one step moves the logits by less than float32 tells apart.
    "adalora": AdaLoraConfig(**LAYER, lora_alpha=8000, total_step=10, tinit=1, tfinal=2),
    "ia3": IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "loha": LoHaConfig(**LAYER),
    "norms": LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm"]),
    "oft": OFTConfig(**LAYER, r=0, oft_block_size=4),
    "vera": VeraConfig(**LAYER, r=4),
    "fourier": FourierFTConfig(**LAYER, n_frequency=10),
}
#: Those whose weights no penalty holds by default, and what to set.
NOT_HELD = {
    "an embedding": "importance_space: adapter",
    "biases": "importance_space: adapter",
    "oft": "penalty_normalization: none",
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's, of layers that it cannot merge
@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters(tmp_path, name):
    """Every kind of adapter trains with replay; a penalty holds its weights or says what to set."""
    steps = {"peft": ADAPTERS[name], "optim": "adamw_torch", "learning_rate": 0.03}
    check(make_trainer(tmp_path, "der+ema", **steps), "der")
    if name not in NOT_HELD:
        check(make_trainer(tmp_path, "l2", **steps), "l2")
        return
    with pytest.raises(ValueError, match=f"[Ss]et `{NOT_HELD[name]}`"):
        make_trainer(tmp_path, "l2", **steps)


def test_the_active_adapter_of_several_is_trained(tmp_path):
    model = get_peft_model(make_model(), lora(), adapter_name="first")
    model.add_adapter("second", lora(r=2))
    model.set_adapter("second")
    first = {name: p.clone() for name, p in model.named_parameters() if ".first." in name}
    check(make_trainer(tmp_path, EVERYTHING, model=model, peft=False))
    assert model.active_adapter == "second"
    parameters = dict(model.named_parameters())
    assert first
    assert all(torch.equal(parameters[name], value) for name, value in first.items())


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_base_weights(tmp_path, bits):
    source = tmp_path / "model"
    make_model(hidden_size=64, intermediate_size=128).save_pretrained(source)
    make_tokenizer().save_pretrained(source)
    quantization = (
        BitsAndBytesConfig(load_in_8bit=True)
        if bits == 8
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    )
    trainer = make_trainer(
        tmp_path, EVERYTHING, model=str(source), quantization_config=quantization, optim="adamw_torch", bf16=False
    )
    trainer.train()
    assert logged(trainer, "safety/der")[1] > 0
    assert logged(trainer, "safety/lwf")[0] == pytest.approx(0.0, abs=1e-4)


# While it traces TRL's own autograd function, torch 2.13 warns in several ways, and fails where warnings are errors.
@pytest.mark.filterwarnings("ignore")
def test_torch_compile(tmp_path):
    check(make_trainer(tmp_path, EVERYTHING, torch_compile=True, torch_compile_backend="eager"))


@pytest.mark.parametrize("strategy", ["bfd", "wrapped"])
def test_packing(tmp_path, strategy):
    config = {"packing": True, "packing_strategy": strategy, "max_length": 48, "max_steps": 2}
    check(make_trainer(tmp_path, EVERYTHING, **config))
