"""Vision-language models: images in the task rows, text alone in the safety rows."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from trl import SFTTrainer

from safe_sft import SafeSFTTrainer
from safe_sft.data import TokenizedRow
from safe_sft.evaluation import measure_asr
from safe_sft.models.parts import backbone
from safe_sft.replay import HiddenStateTap, ReplayBatch
from tests.conftest import (
    assert_same,
    logged,
    lora,
    make_config,
    make_tokenizer,
    move_off_the_anchor,
    safety_rows,
    task_rows,
    trained_weights,
)
from tests.trainer.test_ways_to_train import EVERYTHING, SIZES, check

IMAGE = "<image>"


def make_processor() -> LlavaProcessor:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


def make_llava() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = LlamaConfig(**{**SIZES, "vocab_size": 262})
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=16, patch_size=8, projection_dim=16),
        text_config=text,
        image_token_index=261,
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    return LlavaForConditionalGeneration(config)


def image_rows(count: int = 8) -> Dataset:
    images = [Image.fromarray(np.full((16, 16, 3), 20 * i, dtype=np.uint8)) for i in range(count)]
    return Dataset.from_list(
        [{"images": [image], "prompt": f"{IMAGE}what {i}?", "completion": f" {i}"} for i, image in enumerate(images)]
    )


def make(folder, method, *, cls=SafeSFTTrainer, train=None, safety=None, **config):
    extra = {"safety_dataset": safety or safety_rows()} if cls is SafeSFTTrainer and method != "lwf" else {}
    return cls(
        make_llava(),
        make_config(folder, safety_method=method, max_length=None, **config),
        train_dataset=train if train is not None else image_rows(),
        processing_class=make_processor(),
        peft_config=lora(target_modules=["q_proj", "v_proj"]),
        **extra,
    )


def test_every_kind_of_method_trains_on_images(tmp_path):
    check(make(tmp_path, EVERYTHING))
    check(make(tmp_path, EVERYTHING, teacher="cached", safety=[*safety_rows(), {"prompt": "worse"}]))


def test_text_alone_trains_too(tmp_path):
    check(make(tmp_path, EVERYTHING, train=task_rows()))


@pytest.mark.parametrize("method", ["none", "der", "er", "lwf", "l2"])
def test_zero_weight_equals_plain_sft(tmp_path, method):
    ours = make(tmp_path, method, **({} if method == "none" else {"safety_weight": 0.0}))
    theirs = make(tmp_path, "none", cls=SFTTrainer)
    ours.train()
    theirs.train()
    assert_same(trained_weights(ours), trained_weights(theirs))
    assert logged(ours, "num_tokens") == logged(theirs, "num_tokens")


def test_der_equals_materialised_logits(tmp_path):
    squared = {"teacher_divergence": "squared", "replay_max_answer_tokens": None}
    trainer = make(tmp_path, "der", safety_weight=1.0, safety=safety_rows(1), max_steps=1, **squared)
    move_off_the_anchor(trainer)
    (row,) = trainer._tokenized_rows()
    aligned, ids = make_llava(), torch.tensor([row.input_ids])
    with torch.no_grad():
        difference = trainer.model(ids).logits - aligned(ids).logits
    supervised = torch.tensor(row.labels[1:]) != -100
    trainer.train()
    expected = difference[0, :-1][supervised].square().sum(-1).mean().item()
    assert logged(trainer, "safety/der")[0] == pytest.approx(expected, rel=1e-5)


def test_replay_is_refused_where_it_would_take_a_second_forward_that_cannot_be(tmp_path, monkeypatch):
    """What must be in one forward is decided by how the ranks share the model; here that answer is given."""
    monkeypatch.setattr("safe_sft.trainer.compatibility.must_join", lambda trainer: True)
    with pytest.raises(ValueError, match=r"`safety_method='der'` does not work with images.*Use DDP"):
        make(tmp_path, "der")
    make(tmp_path, "lwf")


def test_variables_that_would_not_reach_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`chat_template_kwargs` does not reach task rows with images"):
        make(tmp_path, "der", chat_template_kwargs={"enable_thinking": False})


def test_a_template_that_reads_parts_gets_parts(tmp_path):
    """As from TRL: the texts of safety rows, of the model's own answers and of what is measured are all there."""
    processor = make_processor()
    processor.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    rows = [{"role": "user", "content": "say"}], [{"role": "assistant", "content": "it"}]
    trainer = SafeSFTTrainer(
        make_llava(),
        make_config(tmp_path, max_length=None, replay_max_new_tokens=2),
        train_dataset=Dataset.from_list([{"prompt": rows[0], "completion": rows[1]}] * 8),
        processing_class=processor,
        peft_config=lora(target_modules=["q_proj", "v_proj"]),
        safety_dataset=[{"prompt": "bad", "completion": "No."}, {"prompt": "worse"}],
    )
    task, (answered, own) = trainer.train_dataset[0]["input_ids"], trainer._tokenized_rows()
    assert processor.tokenizer.decode(task) == "<|user|>say<|assistant|>it"
    assert processor.tokenizer.decode(answered.input_ids) == "<|user|>bad<|assistant|>No."
    assert processor.tokenizer.decode(own.input_ids).startswith("<|user|>worse<|assistant|>")
    assert measure_asr(trainer.model, processor, ["bad"], max_new_tokens=2).prompts == ("bad",)


def test_an_image_leaves_nothing_behind_in_the_positions_of_text():
    """Qwen2.5-VL keeps the offsets of its last images; replayed text must not be shifted by them."""
    torch.manual_seed(0)
    text = {k: v for k, v in SIZES.items() if not k.endswith("_token_id")}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4}
    vision |= {"out_hidden_size": 32, "spatial_merge_size": 2, "window_size": 16, "fullatt_block_indexes": [1]}
    tokens = {"image_token_id": 250, "video_token_id": 251, "vision_start_token_id": 252, "vision_end_token_id": 253}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens))
    tap = HiddenStateTap(backbone(model), pad_token_id=0)
    rows = [TokenizedRow([1, 10, 11], [-100, 10, 11]), TokenizedRow([1, 20], [-100, 20])]
    batch = ReplayBatch.of(rows, [0, 1], torch.device("cpu"))
    ids = torch.tensor([[1, 252, 250, 250, 250, 250, 253, 5]])
    with torch.no_grad():
        before = tap.forward_rows(model, batch)
        model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.randn(16, 96),
            image_grid_thw=torch.tensor([[1, 4, 4]]),
            mm_token_type_ids=(ids == 250).long(),
        )
        assert model.model.rope_deltas is not None
        torch.testing.assert_close(tap.forward_rows(model, batch), before)
