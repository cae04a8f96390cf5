"""Greedy means greedy, and a model that is not alive says nothing."""

import copy

import pytest
import torch
from peft import get_peft_model

from safe_sft.models.finite import first_bad_tensor, require_finite
from safe_sft.models.generation import generate, generation_config
from tests.conftest import lora, make_model

PROMPTS = [[1, 40, 41, 42], [1, 60], [1, 70, 71]]
SETTINGS = {
    "repetition_penalty": {"repetition_penalty": 1.5},
    "beams": {"num_beams": 3},
    "at least": {"min_new_tokens": 12},
    "as a mapping": {"return_dict_in_generate": True, "output_scores": True},
    "several": {"num_return_sequences": 2, "do_sample": True, "temperature": 3.0},
    "look-up": {"prompt_lookup_num_tokens": 3},
    "stop strings": {"stop_strings": ["a"]},
    "bad words": {"bad_words_ids": [[100], [101]]},
    "forced end": {"forced_eos_token_id": 2},
    "suppressed": {"suppress_tokens": list(range(50, 200))},
    "no repeats": {"no_repeat_ngram_size": 1},
    "max length": {"max_length": 3},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("peft", [False, True])
def test_the_models_own_settings_are_set_aside(tokenizer, settings, peft):
    def model():
        return get_peft_model(make_model(), lora()) if peft else make_model()

    plain = generate(model(), tokenizer, PROMPTS, max_new_tokens=12, progress=False)
    other = model()
    own = other.generation_config
    for name, value in settings.items():
        setattr(own, name, value)
    before = copy.deepcopy(own.to_dict())
    assert generate(other, tokenizer, PROMPTS, max_new_tokens=12, progress=False) == plain
    assert other.generation_config is own
    assert own.to_dict() == before


def test_where_an_answer_ends_is_the_models_to_say(tokenizer):
    model = make_model()
    first = generate(model, tokenizer, PROMPTS[:1], max_new_tokens=4, progress=False)[0][0]
    model.generation_config.eos_token_id = [first, 2]
    assert generate(model, tokenizer, PROMPTS[:1], max_new_tokens=4, progress=False) == [[first]]
    model.generation_config.eos_token_id = 0
    assert generation_config(model, tokenizer, 1).eos_token_id == [0, 2], "its own, and the one that training teaches"


def test_the_settings_come_back_after_an_error(tokenizer):
    model = make_model()
    own = model.generation_config
    model.forward = lambda *args, **options: 1 / 0
    with pytest.raises(ZeroDivisionError):
        generate(model, tokenizer, PROMPTS, max_new_tokens=2, progress=False)
    assert model.generation_config is own


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value):
    model = make_model()
    assert first_bad_tensor(model) is None
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
        model.lm_head.weight[0, 0] = value
    with pytest.raises(ValueError, match=r"`model\.layers\.1\.mlp\.up_proj\.weight` holds NaN or infinity"):
        require_finite(model)


def test_logits_that_are_not_finite_are_refused(tokenizer):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(3e38)
        model.model.norm.weight.fill_(1e30)
    assert first_bad_tensor(model) is None
    with pytest.raises(ValueError, match="logits of LlamaForCausalLM are not finite"):
        generate(model, tokenizer, PROMPTS, max_new_tokens=2, progress=False)
