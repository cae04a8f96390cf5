"""Rows that a model cannot be trained on are named before training: tokens that it lacks, and none that are left."""

import pytest
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM

from safe_sft import SafeSFTTrainer
from safe_sft.data import SafetyRow, tokenize_row
from safe_sft.data.rendering import RenderingError
from safe_sft.models.generation import generation_config
from safe_sft.models.token_limits import TokenLimits, table_positions
from safe_sft.trainer.task_rows import check_rows
from tests.conftest import make_config, make_model, make_tokenizer, make_trainer, safety_rows, task_rows


def with_word(word):
    """The trainer's tokenizer knows a word more than its model."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([word])
    return {"processing_class": tokenizer}


@pytest.mark.parametrize(("word", "what"), [("colour", "'train_dataset'"), ("bad", "the safety rows")])
def test_a_token_that_the_model_lacks_is_named(word, what, tmp_path):

    with pytest.raises(ValueError, match=rf"Row 0 of {what} has the token 261, and the model has 261 tokens.*resize"):
        SafeSFTTrainer(
            make_model(),
            make_config(tmp_path, safety_method="der"),
            train_dataset=task_rows(),
            safety_dataset=safety_rows(),
            peft_config=LoraConfig(target_modules="all-linear"),
            **with_word(word),
        )


def test_rows_that_are_all_cut_off_are_named(tmp_path):
    rows = Dataset.from_list([{"prompt": "p" * 50, "completion": "c"}] * 8)
    with pytest.raises(ValueError, match=r"No training row keeps a token to learn.*Raise `max_length`"):
        make_trainer(tmp_path, train=rows, max_length=20)


def test_rows_that_a_collator_of_the_users_reads_are_left_to_it(tmp_path):
    rows = Dataset.from_list([{"mine": "a"}])
    raw = make_config(tmp_path, safety_method="der", dataset_kwargs={"skip_prepare_dataset": True})
    check_rows(raw, rows)
    with pytest.raises(ValueError, match="columns"):
        check_rows(make_config(tmp_path, safety_method="der"), rows)


@pytest.mark.parametrize("role", ["human", "developer"])
def test_a_text_of_a_role_that_the_template_drops_is_refused(role):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] in ('user', 'assistant') %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    turns = [{"role": role, "content": "first words"}, {"role": "user", "content": "then more"}]
    with pytest.raises(RenderingError, match="drops the text 'first words'"):
        tokenize_row(tokenizer, SafetyRow(turns, [{"role": "assistant", "content": "No"}]))


@pytest.mark.parametrize(("own", "ends"), [(9, [9, 2]), ([9, 2], [9, 2]), (None, 2), (2, 2), ([9, 10], [9, 10, 2])])
def test_an_answer_ends_at_the_tokenizers_end_too(own, ends):
    model = make_model()
    model.generation_config.eos_token_id = own
    assert generation_config(model, make_tokenizer(), 4).eos_token_id == ends


@pytest.mark.parametrize(("changed", "is_stale"), [({"rms_norm_eps": 1e-2}, True), ({"use_cache": False}, False)])
def test_a_teacher_of_another_configuration_is_refused(changed, is_stale, tmp_path):
    cached = {"teacher": "cached", "teacher_cache": str(tmp_path / "teacher")}
    make_trainer(tmp_path / "one", **cached)
    model = make_model(**changed)
    if not is_stale:
        make_trainer(tmp_path / "two", model=model, **cached)
        return
    with pytest.raises(ValueError, match="belongs to something else: its config"):
        make_trainer(tmp_path / "two", model=model, **cached)


def with_positions(kind, count):
    """A model with a table of `count` positions."""
    tokenizer = make_tokenizer()
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": count, "num_hidden_layers": 1}
    wide = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "ffn_dim": 16,
        "word_embed_proj_dim": 16,
    }
    names = {"gpt2": ("n_layer", "n_head", "n_embd")}.get(kind)
    wide = dict(zip(names, (1, 2, 16), strict=True)) if names else wide
    config = AutoConfig.for_model(kind, **sizes, **wide, pad_token_id=tokenizer.pad_token_id)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "biogpt"])
def test_a_table_of_positions_is_found(kind):
    assert table_positions(with_positions(kind, 24)) == 24


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_positions_that_are_computed_have_no_end(kind):
    assert table_positions(with_positions(kind, 24)) is None


def test_positions_before_which_padding_is_counted():
    model = with_positions("roberta", 24)
    assert table_positions(model) == 24 - model.config.pad_token_id - 1


@pytest.mark.parametrize(
    ("place", "what"), [("train", "'train_dataset'"), ("eval", "'eval_dataset'"), ("safety", "the safety rows")]
)
def test_a_row_beyond_the_positions_is_named(place, what, tmp_path):
    long = [{"prompt": "p" * 30, "completion": "c" * 30}]
    rows = {
        name: Dataset.from_list([{"prompt": "p", "completion": "c"}] * 4 + long * (name == place))
        for name in ("train", "eval")
    }
    safety = [*safety_rows(), *(long if place == "safety" else [])]
    with pytest.raises(ValueError, match=rf"Row \d+ of {what} has \d+ tokens, and GPT2LMHeadModel has 40 positions"):
        SafeSFTTrainer(
            with_positions("gpt2", 40),
            make_config(tmp_path, safety_method="der", max_length=128),
            train_dataset=rows["train"],
            eval_dataset=rows["eval"],
            safety_dataset=safety,
            processing_class=make_tokenizer(),
        )


def test_packed_rows_count_their_examples(tmp_path):
    rows = Dataset.from_list([{"prompt": "p" * 8, "completion": "c" * 8}] * 16)
    parts = (with_positions("gpt2", 40), make_config(tmp_path, safety_method="none", max_length=64, packing=True))
    trainer = SafeSFTTrainer(*parts, train_dataset=rows, processing_class=make_tokenizer())
    assert max(map(len, trainer.train_dataset["input_ids"])) > 40
    limits = TokenLimits.of(trainer.model)
    column = trainer.train_dataset.data.column
    assert limits.allow(column("input_ids"), column("seq_lengths"))
    assert not limits.allow(column("input_ids"))
