"""A kept answer is that of the very same model: whatever an answer depends on changes the digest."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from safe_sft.models.identity import model_identity
from tests.conftest import lora, make_model, make_tokenizer


def adapted():
    return get_peft_model(make_model(), lora())


def set_scaling(model):
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling["default"] *= 2


def move_one_value(model):
    with torch.no_grad():
        model.get_base_model().model.layers[1].mlp.down_proj.weight[-1, -2] += 1e-3


def move_a_buffer(model):
    model.get_base_model().model.rotary_emb.inv_freq *= 1.01


CHANGES = {
    "a scaling": set_scaling,
    "one weight": move_one_value,
    "a buffer that is not saved": move_a_buffer,
    "the config": lambda model: setattr(model.get_base_model().config, "rope_parameters", {"rope_theta": 5.0}),
    "an epsilon": lambda model: setattr(model.get_base_model().model.norm, "variance_epsilon", 0.1),
    "the adapter's config": lambda model: setattr(model.peft_config["default"], "lora_alpha", 99),
    "an adapter that is off": lambda model: model.base_model.disable_adapter_layers(),
    "an adapter that is merged": lambda model: model.merge_adapter(),
    "the dtype": lambda model: model.to(torch.bfloat16),
    "the attention": lambda model: model.get_base_model().set_attn_implementation("eager"),
}


def test_the_same_model_has_the_same_digest(tmp_path):
    tokenizer = make_tokenizer()
    first = model_identity(adapted(), tokenizer)
    again = adapted().eval()
    assert model_identity(again, make_tokenizer()) == first
    again(input_ids=torch.tensor([[1, 2, 3]]))
    tokenizer(["a", "bb"], padding=True)
    assert model_identity(again.train(), tokenizer) == first
    make_model().save_pretrained(tmp_path / "m")
    (tmp_path / "n").symlink_to(tmp_path / "m")
    loaded = [model_identity(AutoModelForCausalLM.from_pretrained(tmp_path / name), tokenizer) for name in "mn"]
    assert loaded[0] == loaded[1]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_an_answer_depends_on_changes_the_digest(change):
    tokenizer, model = make_tokenizer(), adapted()
    before = model_identity(model, tokenizer)
    change(model)
    assert model_identity(model, tokenizer) != before


def test_the_tokenizer_and_its_template_change_the_digest():
    model, plain = make_model(), model_identity(make_model(), make_tokenizer())
    other, templated = make_tokenizer(), make_tokenizer()
    other.add_tokens(["<more>"])
    templated.chat_template += " "
    assert len({plain, model_identity(model, other), model_identity(model, templated)}) == 3


def test_a_changed_adapter_config_on_disk_changes_the_digest(tmp_path):
    adapted().save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"

    def digest():
        return model_identity(PeftModel.from_pretrained(make_model(), tmp_path), make_tokenizer())

    before = digest()
    assert digest() == before
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 64}))
    assert digest() != before
