"""What a forward on the meta device is said to keep is what a real one keeps."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.live_memory import allocations
from safe_sft.models.parts import backbone
from safe_sft.planning.activations import SavedBytes, count_activations
from safe_sft.planning.model import plan_model

from ..conftest import lora

ROWS, WIDTH = 3, 96


def shape(kind: str):
    extra = {} if kind == "llama" else {"head_dim": 32}
    return AutoConfig.for_model(
        kind,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=500,
        **extra,
    )


def real(kind, dtype, peft, checkpointing):
    model = AutoModelForCausalLM.from_config(shape(kind), dtype=dtype)
    model = get_peft_model(model, lora(lora_dropout=0.05)) if peft else model
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        if peft:
            model.enable_input_require_grads()
    return model


def forward(model, autocast):
    ids = torch.zeros(ROWS, WIDTH, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return backbone(model)(input_ids=ids, use_cache=False).last_hidden_state


def planned(kind, dtype, peft, checkpointing, autocast):
    plan = plan_model(shape(kind), dtype, None, lora(lora_dropout=0.05) if peft else None)
    return plan, count_activations(
        plan.runnable, ROWS, WIDTH, autocast=torch.bfloat16 if autocast else None, checkpointing=checkpointing
    )


@pytest.mark.parametrize("kind", ["llama", "gemma", "qwen3"])
@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["all", "checkpointing"])
@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, False), (torch.bfloat16, True), (torch.float32, True)]
)
def test_kept_bytes(kind, peft, checkpointing, dtype, autocast):
    model = real(kind, dtype, peft, checkpointing)
    with SavedBytes(model) as saved:
        states = forward(model, autocast)
    _, activations = planned(kind, dtype, peft, checkpointing, autocast)
    found = activations.checkpoints if checkpointing else activations.kept
    # The angles of the positions are held by the layers that are run again, but not by autograd.
    assert found == pytest.approx(saved.total(), rel=0.05 if checkpointing else 0.005)
    assert activations.state_bytes == states[0, 0].nbytes


@pytest.mark.parametrize("checkpointing", [False, True], ids=["all", "checkpointing"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_peak_of_a_lora_step(tmp_path, checkpointing, dtype):
    from safe_sft.planning.memory import step_memory

    from ..conftest import make_config

    model = real("llama", dtype, True, checkpointing)
    forward(model, False).sum().backward()
    model.zero_grad()
    with allocations() as measured:
        forward(model, False).sum().backward()
    plan, activations = planned("llama", dtype, True, checkpointing, False)
    args = make_config(tmp_path, gradient_checkpointing=checkpointing)
    step = step_memory(plan, activations, args, ROWS * WIDTH, supervised=0)
    assert step.peak(0, plan.trainable_bytes) == pytest.approx(measured.peak, rel=0.15)


def test_a_linear_layer_by_hand():
    class Layers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    model = Layers()
    with SavedBytes(model) as saved:
        model(torch.zeros(5, 8))
    # The input (5 · 8), and the output of relu (5 · 16), which the second layer shares.
    assert saved.total() == 4 * (5 * 8 + 5 * 16)


def test_attention_matrices_are_kept_by_eager_attention_alone():
    config = shape("llama")
    fused, eager = (plan_model(config, torch.float32, None, None, name) for name in (None, "eager"))
    kept = [count_activations(p.runnable, 1, 256, autocast=None, checkpointing=False).kept for p in (fused, eager)]
    assert kept[1] - kept[0] > 4 * 4 * 4 * 256 * 256 / 2  # layers · heads · bytes · T²


SMALL = {
    "falcon": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": False},
    "gptj": {"n_embd": 128, "n_layer": 2, "n_head": 4, "rotary_dim": 16},
    "gpt_neo": {"hidden_size": 128, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "bloom": {"hidden_size": 128, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 128, "n_layers": 2, "n_heads": 4},
    "codegen": {"n_embd": 128, "n_layer": 2, "n_head": 4, "rotary_dim": 16},
    "gpt2": {"n_embd": 128, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


@pytest.mark.parametrize("kind", SMALL)
def test_models_that_have_an_attention_of_their_own_are_counted(kind):
    config = AutoConfig.for_model(kind, vocab_size=500, **SMALL[kind])
    plan = plan_model(config, torch.float32, None, None)
    counted = count_activations(plan.runnable, ROWS, WIDTH, autocast=None, checkpointing=False)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    assert counted.layers == 2
    with SavedBytes(model) as saved:
        forward(model, autocast=False)
    assert counted.kept == pytest.approx(saved.total(), rel=0.06)
    assert counted.widest == 4 * 128
