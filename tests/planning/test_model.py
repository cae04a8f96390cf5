"""Parameters and bytes are those of the real objects."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaForCausalLM

from safe_sft.planning.configs import model_config, shipped_names
from safe_sft.planning.model import four_bit_bytes, plan_model

from ..conftest import lora, make_model

#: As the models' pages count them; Mistral, Gemma and LLaMA also as their papers' authors do.
TOTALS = {
    "meta-llama/Llama-2-7b-chat-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "google/gemma-2b-it": 2_506_172_416,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
}


@pytest.mark.parametrize("name", TOTALS)
def test_parameters_of_shipped_shapes(name):
    plan = plan_model(model_config(name), torch.bfloat16, None, None)
    assert plan.parameters == plan.trainable_parameters == TOTALS[name]
    assert plan.trainable_bytes == 2 * TOTALS[name]


def test_every_shipped_shape_is_checked():
    names = shipped_names()
    assert {names[name.lower()] for name in TOTALS} | {"qwen3-4b"} == set(names.values())


def test_lora_on_llama2_7b():
    plan = plan_model(model_config("meta-llama/Llama-2-7b-hf"), torch.bfloat16, None, lora(r=16))
    assert plan.trainable_parameters == 39_976_960
    assert plan.trainable_bytes == 4 * 39_976_960  # PEFT keeps the adapter of 16-bit weights in float32


def test_four_bit_bytes_by_hand():
    # 4096 · 11008 elements: 22544384 packed; 704512 blocks of 64; 2752 blocks of 256 scales.
    assert four_bit_bytes(4096 * 11008, double=False) == 22544384 + 64 + 4 * 704512
    assert four_bit_bytes(4096 * 11008, double=True) == 22544384 + 64 + 704512 + 4 * 2752 + 1024 + 4


def nf4(double: bool) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def real_bytes(model) -> tuple[int, int]:
    """Of quantised weights with everything that their quantisation keeps, and of all other tensors that are frozen."""
    packed = rest = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors = [parameter, state.absmax, state.code]
            tensors += [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
            packed += sum(tensor.nbytes for tensor in tensors)
        elif hasattr(parameter, "SCB"):
            packed += parameter.nbytes + parameter.SCB.nbytes
        elif not parameter.requires_grad:
            rest += parameter.nbytes
    return packed, rest + sum(buffer.nbytes for buffer in model.buffers())


@pytest.mark.parametrize(
    "quantization",
    [nf4(double=False), nf4(double=True), BitsAndBytesConfig(load_in_8bit=True)],
    ids=["nf4", "nf4 double", "int8"],
)
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_quantised_bytes_are_the_real_ones(tmp_path, quantization, tied):
    make_model(hidden_size=72, intermediate_size=100, tie_word_embeddings=tied, dtype=torch.bfloat16).save_pretrained(
        tmp_path
    )
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=quantization, dtype=torch.bfloat16)
    model = get_peft_model(loaded, lora())
    plan = plan_model(model_config(str(tmp_path)), torch.bfloat16, quantization, lora())
    assert (plan.quantized_bytes, plan.frozen_bytes) == real_bytes(model)
    assert plan.trainable_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    # TRL makes the adapter of a quantised model bf16.
    assert plan.trainable_bytes == 2 * plan.trainable_parameters
    assert plan.parameters == sum(
        p.numel() for p in make_model(hidden_size=72, intermediate_size=100, tie_word_embeddings=tied).parameters()
    )


ADAPTERS = {
    "full": None,
    "lora": lora(),
    "few modules": lora(target_modules=["q_proj", "v_proj"], r=3),
    "head too": lora(modules_to_save=["lm_head"]),
    "dora": lora(use_dora=True),
}


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_trained_parameters_are_the_real_ones(adapter, dtype):
    model = LlamaForCausalLM._from_config(make_model().config, dtype=dtype)
    plan = plan_model(model.config, dtype, None, adapter)
    if adapter is not None:
        model = get_peft_model(model, LoraConfig(**adapter.to_dict()))
    assert {n: (p.shape, p.dtype) for n, p in plan.trainable.items()} == {
        n: (p.shape, p.dtype) for n, p in model.named_parameters() if p.requires_grad
    }
    assert (plan.quantized_bytes, plan.frozen_bytes) == real_bytes(model)


def test_planning_leaves_the_config_alone():
    config = make_model().config
    before = config.to_dict()
    plan_model(config, torch.bfloat16, nf4(double=True), lora())
    assert config.to_dict() == before
    assert AutoModelForCausalLM.from_config(config).config._attn_implementation == "sdpa"


def test_quantised_weights_are_not_tuned_in_full():
    with pytest.raises(ValueError, match="use_peft"):
        plan_model(make_model().config, torch.bfloat16, nf4(double=True), None)
