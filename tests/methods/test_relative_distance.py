"""The relative squared distance: what it means does not depend on how a model writes its logits."""

import pytest
import torch

from safe_sft.losses import centred_logit_gram, live_words, tiled_squared_logit_distance
from safe_sft.methods.base import TokenStates
from safe_sft.methods.teacher_distance import TeacherDistance
from safe_sft.models.parts import LogitHead
from tests.conftest import make_config, make_trainer, trained_weights

TOKENS, D, VOCAB = 5, 6, 11


def states(seed: int) -> torch.Tensor:
    return torch.randn(TOKENS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weight() -> torch.Tensor:
    return torch.randn(VOCAB, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def distance(head, hidden, teacher, *, words=None, trained=False) -> torch.Tensor:
    """Return the distance of each token and, as its last row, the gradient with respect to the hidden states."""
    hidden = hidden.clone().requires_grad_()
    head = LogitHead(head, trained=trained) if isinstance(head, torch.Tensor) else head
    measure = TeacherDistance(head, "relative_squared", 1.0, words=words, states=teacher)
    value = measure(TokenStates(hidden, torch.zeros(len(hidden)), head, lambda: teacher, head))
    value.sum().backward()
    return value.detach(), hidden.grad


def test_by_hand():
    # Logits (2, 0) centre to (1, −1), of the aligned model (1, 3) to (−1, 1): 8 apart, and the aligned norm is 2.
    eye = torch.eye(2, dtype=torch.float64)
    value, _ = distance(eye, torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[1.0, 3.0]]).double())
    assert value.tolist() == [4.0]


def test_it_is_centred_logits_against_their_own_size():
    h, h0, w = states(0), states(1), weight()
    z, z0 = ((x @ w.T) - (x @ w.T).mean(-1, keepdim=True) for x in (h, h0))
    expected = (z - z0).square().sum(-1) / z0.square().sum(-1).mean()
    for trained in (False, True):  # by the Gram form, and by tiles
        torch.testing.assert_close(distance(w, h, h0, trained=trained)[0], expected)


@pytest.mark.parametrize("trained", [False, True], ids=["Gram", "tiles"])
@pytest.mark.parametrize(
    "change",
    [
        lambda h, h0, w: (h, h0, torch.cat([w, torch.zeros(4, D).double()]), None),
        lambda h, h0, w: (h, h0, torch.cat([w, torch.randn(4, D).double()]), VOCAB),
        lambda h, h0, w: (h, h0, w + torch.randn(D).double(), None),
        lambda h, h0, w: (h, h0, 3 * w, None),
        lambda h, h0, w: (h, h0, torch.cat([w, w]), None),
    ],
    ids=["zero rows", "rows after the tokenizer's", "a constant on all logits", "logit scale", "each word twice"],
)
def test_what_does_not_change_the_model_does_not_change_the_term(change, trained):
    h, h0, w = states(0), states(1), weight()
    value, gradient = distance(w, h, h0, trained=trained)
    *changed, words = change(h, h0, w)
    now, slope = distance(changed[2], changed[0], changed[1], words=words, trained=trained)
    torch.testing.assert_close(now, value)
    torch.testing.assert_close(slope, gradient)


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_hidden_states_and_head_may_share_a_scale_either_way(scale):
    h, h0, w = states(0), states(1), weight()
    value, gradient = distance(w, h, h0)
    now, slope = distance(w / scale, h * scale, h0 * scale)
    torch.testing.assert_close(now, value)
    torch.testing.assert_close(slope * scale, gradient)


def test_doubling_the_width_by_duplication_changes_nothing():
    h, h0, w = states(0), states(1), weight()
    value, gradient = distance(w, h, h0)
    now, slope = distance(torch.cat([w, w], 1) / 2, torch.cat([h, h], 1), torch.cat([h0, h0], 1))
    torch.testing.assert_close(now, value)
    torch.testing.assert_close(slope[:, :D] + slope[:, D:], gradient)


def test_a_head_with_a_bias_and_a_cap_counts_the_bias_in_the_aligned_norm():
    h, h0, w = states(0), states(1), weight()
    head = LogitHead(w, bias=torch.arange(VOCAB).double(), scale=0.5, softcap=4.0)
    logits = [head.logits(x) for x in (h, h0)]
    z, z0 = (x - x.mean(-1, keepdim=True) for x in logits)
    expected = (z - z0).square().sum(-1) / z0.square().sum(-1).mean()
    torch.testing.assert_close(distance(head, h, h0)[0], expected)


def test_the_centred_gram_is_that_of_rows_without_their_mean():
    w = torch.cat([weight(), torch.zeros(2, D).double()])
    live = live_words(w, VOCAB + 2)
    assert live.tolist() == [True] * VOCAB + [False] * 2
    rows = w[:VOCAB] - w[:VOCAB].mean(0)
    torch.testing.assert_close(centred_logit_gram(w, live), rows.T @ rows)
    h, h0 = states(0), states(1)
    tiles = tiled_squared_logit_distance(h, LogitHead(w), h0, LogitHead(w), live)
    difference = h - h0
    torch.testing.assert_close(tiles, (difference @ (rows.T @ rows) * difference).sum(-1))


@pytest.mark.parametrize("peft", [True, False], ids=["adapter", "full"])
def test_a_resumed_run_keeps_the_unit(tmp_path, peft):
    settings = {"teacher_divergence": "relative_squared", "safety_weight": 1.0, "peft": peft, "learning_rate": 1e-2}
    whole = make_trainer(tmp_path / "a", "der", max_steps=4, save_steps=2, save_strategy="steps", **settings)
    whole.train()
    again = make_trainer(tmp_path / "b", "der", max_steps=4, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for name, value in trained_weights(whole).items():
        assert torch.equal(value, trained_weights(again)[name]), name


def test_it_needs_replayed_rows(tmp_path):
    with pytest.raises(ValueError, match="`lwf` replays none"):
        make_config(tmp_path, safety_method="lwf", teacher_divergence="relative_squared")
