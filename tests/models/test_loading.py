"""A model and its tokenizer, from folders."""

import json

import pytest
from peft import get_peft_model

from safe_sft.cli.main import main
from safe_sft.evaluation import load_model
from safe_sft.models.loading import load_tokenizer
from tests.conftest import lora, make_model, make_tokenizer


@pytest.fixture
def folder(tmp_path):
    """A base model without a chat template, an adapter that was aligned with one, and one that was saved alone."""
    make_model().save_pretrained(tmp_path / "base")
    base = make_tokenizer()
    base.chat_template = None
    base.save_pretrained(tmp_path / "base")
    for name in ("aligned", "alone"):
        get_peft_model(make_model(), lora()).save_pretrained(tmp_path / name)
    make_tokenizer().save_pretrained(tmp_path / "aligned")
    return tmp_path


def test_an_adapter_s_own_tokenizer_goes_before_that_of_its_base(folder):
    base = str(folder / "base")
    assert load_model(base, str(folder / "aligned"))[1].chat_template == make_tokenizer().chat_template
    for adapter in (None, str(folder / "alone")):
        assert load_model(base, adapter)[1].chat_template is None


def test_an_aligned_adapter_is_evaluated_with_its_chat_template(folder, monkeypatch):
    import safe_sft.evaluation.answering as answering

    asked, generate = [], answering.generate

    def listen(model, tokenizer, prompts, **options):
        asked.extend(tokenizer.decode(ids) for ids in prompts)
        return generate(model, tokenizer, prompts, **options)

    monkeypatch.setattr(answering, "generate", listen)
    (folder / "bad.jsonl").write_text(json.dumps({"prompt": "be bad"}))
    suite = ["--suite", str(folder / "bad.jsonl"), "--max-new-tokens", "2", "--dtype", "float32"]
    assert main(["evaluate", "--model", str(folder / "base"), "--adapter", str(folder / "aligned"), *suite]) == 0
    assert asked == ["<s><|user|>be bad<|assistant|>"]


def test_the_chat_template_that_only_a_processor_reads_is_found(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).chat_template is None
    (tmp_path / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}')
    assert load_tokenizer(tmp_path).chat_template == "{{ messages }}"
