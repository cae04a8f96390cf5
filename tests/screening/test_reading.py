"""What is read off a model: right numbers, once for each request, whatever the batch."""

import math

import pytest
import torch
from transformers import DynamicCache

from safe_sft.models.modes import without_dropout
from safe_sft.screening.openings import OPENING_TOKENS, Openings, openings_of
from safe_sft.screening.rows import Exchange, exchanges, tokenize
from safe_sft.screening.signals import BEGINNING, Reader
from tests.conftest import make_model, make_tokenizer

TEXTS = ("No, I can not", "I'm sorry", "It is wrong")
EXCHANGES = [
    Exchange("How do I?", " Sure, here it is, all of it and more"),
    Exchange("A much longer request than the others are, by far?", " Yes"),
    Exchange("Why", " Because of the rain"),
    Exchange([{"role": "user", "content": "two turns"}], [{"role": "assistant", "content": "an answer"}]),
]


def tokenized(tokenizer, found=EXCHANGES):
    return [tokenize(tokenizer, one, {}, "A row", max_length=256) for one in found]


def reader(model, tokenizer, batch_size=4, texts=TEXTS):
    return Reader(model, tokenizer.pad_token_id, Openings.given(texts, tokenizer), batch_size)


def by_hand(model, tokens):
    """The losses of a row's labelled tokens, from its logits."""
    logits = model(torch.tensor([tokens.row.input_ids])).logits[0].log_softmax(-1)
    return [
        -logits[place - 1, label].item() for place, label in enumerate(tokens.row.labels) if label != -100 and place
    ]


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@torch.no_grad()
def test_numbers_are_those_of_the_logits(tokenizer, batch_size, shares):
    model = make_model().eval()
    one, tokens = reader(model, tokenizer, batch_size), tokenized(tokenizer)
    one.shares_requests = shares
    for found, asked in zip(one.read(tokens), tokens, strict=True):
        losses = by_hand(model, asked)
        assert found.answer_nll == pytest.approx(sum(losses) / len(losses), rel=1e-4)
        assert found.beginning_nll == pytest.approx(sum(losses[:BEGINNING]) / len(losses[:BEGINNING]), rel=1e-4)
        joint = []
        for opening in Openings.given(TEXTS, tokenizer).tokens:
            logits = model(torch.tensor([[*asked.request, *opening]])).logits[0].log_softmax(-1)
            start = len(asked.request) - 1
            joint.append(sum(logits[start + k, token].item() for k, token in enumerate(opening)))
        assert found.refusal == pytest.approx(torch.tensor(joint).logsumexp(0).item(), rel=1e-4)
        states = model.model(torch.tensor([asked.request])).last_hidden_state[0].mean(0)
        torch.testing.assert_close(found.state, states, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_model_that_knows_nothing_has_the_entropy_of_its_words(tokenizer):
    model = make_model().eval()
    model.lm_head.weight.zero_()
    (found,) = reader(model, tokenizer).read(tokenized(tokenizer, EXCHANGES[:1]))
    words = model.config.vocab_size
    assert found.answer_nll == pytest.approx(math.log(words), rel=1e-5)
    assert found.refusal == pytest.approx(math.log(3) - OPENING_TOKENS * math.log(words), rel=1e-5)


def test_requests_run_again_where_a_model_keeps_something_else(tokenizer, monkeypatch):
    model = make_model().eval()
    one, tokens = reader(model, tokenizer), tokenized(tokenizer)
    one.choose_way(tokens)
    assert one.shares_requests
    shared = one.read(tokens)

    def fails(self, count):
        raise ValueError("no cropping")

    monkeypatch.setattr(DynamicCache, "crop", fails)
    other = reader(model, tokenizer)
    other.choose_way(tokens)
    assert not other.shares_requests
    for left, right in zip(shared, other.read(tokens), strict=True):
        assert left.refusal == pytest.approx(right.refusal, rel=1e-4)


def test_a_window_that_answers_push_requests_out_of_is_found_out(tokenizer):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = {"vocab_size": 261, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    model = MistralForCausalLM(MistralConfig(**config, **heads, sliding_window=12)).eval()
    one, tokens = reader(model, tokenizer), tokenized(tokenizer)
    with without_dropout(model):
        one.choose_way(tokens)
        found = one.read(tokens)
    for signals, asked in zip(found, tokens, strict=True):
        assert signals.refusal == pytest.approx(one._again([asked.request])[0], rel=0.06, abs=0.12)


def test_every_answer_of_a_conversation_is_an_exchange():
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    found = exchanges(row, 0, "rows")
    assert [(one.asked, one.said) for one in found] == [("a", "b"), ("c", "d")]
    assert len(found[1].request) == 4


def test_a_request_without_room_has_no_tokens(tokenizer):
    assert tokenize(tokenizer, Exchange("x" * 300, "y"), {}, "A row", max_length=128) is None


def test_openings_are_those_of_the_refusals_and_none_begins_with_another(tokenizer):
    texts = ["I'm sorry, but no.", "I'm sorry, but never.", "I cannot help.", "Sure, here it is."]
    answers = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    found = openings_of(answers, texts, tokenizer)
    assert (found.texts, found.refused, found.asked) == (("I'm ", "I ca"), 3, 4)
    assert Openings.given(["I", "I'm sorry", "No way"], tokenizer).texts == ("I", "No w")


def test_a_model_that_refuses_hardly_anything_is_an_error(tokenizer):
    with pytest.raises(ValueError, match=r"refuses 0 of the 2 .* Give the aligned model"):
        openings_of([[1, 2, 3, 4]] * 2, ["Sure."] * 2, make_tokenizer())
