"""No loss builds a `(tokens, vocab)` tensor, forward or backward, alone or in a step of the trainer."""

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import Gemma2Config, Gemma2ForCausalLM

from benchmarks.live_memory import allocations
from benchmarks.training_cost import NaiveDER
from safe_sft import losses
from safe_sft.data import TokenizedRow
from safe_sft.losses import Head, outputs
from tests.conftest import lora, make_model, make_trainer, move_off_the_anchor, task_rows
from tests.losses.test_losses import materialised_divergence
from tests.trainer.test_ways_to_train import SIZES

FLOAT = 4
TOKENS, VOCAB, D = 64, 2**16, 4
#: One tensor of logits: 16 MiB.
LOGITS = TOKENS * VOCAB * FLOAT


@pytest.fixture
def small_tiles(monkeypatch):
    """Half a MiB a tile, a thirty-second of the logits; whatever the constants, the losses keep to them."""
    monkeypatch.setattr(outputs, "_TILE_ELEMENTS", 2**17)


def tensors(trained_head: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    head = torch.randn(VOCAB, D)
    return {
        "hidden": torch.randn(TOKENS, D, requires_grad=True),
        "weight": head.clone().requires_grad_(trained_head),
        "teacher_hidden": torch.randn(TOKENS, D),
        "teacher_weight": head,
    }


def compared(t: dict[str, torch.Tensor], softcap: float | None = None) -> tuple:
    heads = (Head(t[name], softcap=softcap) for name in ("weight", "teacher_weight"))
    return t["hidden"], next(heads), t["teacher_hidden"], next(heads)


OURS = {
    "squared, Gram": lambda t: losses.squared_logit_distance(
        t["hidden"], t["teacher_hidden"], losses.logit_gram(t["weight"].detach())
    ),
    "squared, tiles": lambda t: losses.tiled_squared_logit_distance(*compared(t)),
    "squared, capped": lambda t: losses.tiled_squared_logit_distance(*compared(t, 30.0)),
    "kl": lambda t: losses.token_divergence(*compared(t), beta=0.0),
    "reverse_kl": lambda t: losses.token_divergence(*compared(t), beta=1.0),
    "jsd, capped": lambda t: losses.token_divergence(*compared(t, 30.0), beta=0.5, temperature=2.0),
    "cross-entropy": lambda t: losses.token_cross_entropy(
        t["hidden"], Head(t["weight"], softcap=30.0), torch.arange(TOKENS)
    ),
    "a drawn token": lambda t: (
        losses.sampled_tokens(t["hidden"], Head(t["weight"]), torch.rand(TOKENS)) * t["hidden"].sum()
    ),
}
NAIVE = {
    "squared": lambda z, z0: (z - z0).square().sum(-1),
    "kl": lambda z, z0: materialised_divergence(z, z0, "kl", 1.0),
    "cross-entropy": lambda z, z0: F.cross_entropy(z, torch.arange(TOKENS), reduction="none"),
}


@pytest.mark.parametrize("trained_head", [False, True], ids=["frozen head", "trained head"])
@pytest.mark.parametrize("name", OURS)
def test_a_loss_and_its_gradient_never_hold_the_logits(small_tiles, name, trained_head):
    given = tensors(trained_head)
    with allocations() as found:
        OURS[name](given).sum().backward()
    assert given["hidden"].grad is not None
    assert found.largest <= LOGITS / 16  # the head, and its gradient
    assert found.peak < 0.6 * LOGITS  # eight tiles, and the gradients of the head


@pytest.mark.parametrize("name", NAIVE)
def test_materialised_logits_are_seen(name):
    given = tensors(False)
    with allocations() as found:
        z = given["hidden"] @ given["weight"].T
        NAIVE[name](z, given["teacher_hidden"] @ given["teacher_weight"].T).sum().backward()
    assert found.largest >= LOGITS
    assert found.peak >= 3 * LOGITS


def gemma() -> Gemma2ForCausalLM:
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": VOCAB, "hidden_size": 16}
    return Gemma2ForCausalLM(Gemma2Config(**sizes, head_dim=8, final_logit_softcapping=5.0, query_pre_attn_scalar=8))


STEPS = {
    "der, online": ("der", {}, None),
    "der, cached": ("der", {"teacher": "cached"}, None),
    "der, kl": ("der", {"teacher_divergence": "kl"}, None),
    "der, capped logits": ("der", {}, gemma),
    "der, trained head": ("der", {"peft": lora(modules_to_save=["lm_head"])}, None),
    "der++": ("der++", {}, None),
    "lwf": ("lwf", {}, None),
    "csft": ("csft", {}, None),
}


@pytest.mark.parametrize("case", STEPS)
def test_a_training_step_never_holds_the_logits(tmp_path, small_tiles, case):
    """TRL's own task loss holds `(task positions, 32768)` at most: it is kept small beside the replayed logits."""
    method, config, model = STEPS[case]
    long = {"prompt": "p", "completion": "x" * 40}
    of_task = method in ("lwf", "csft")
    trainer = make_trainer(
        tmp_path,
        method,
        model=model() if model else make_model(vocab_size=VOCAB, hidden_size=16),
        train=Dataset.from_list([long] * 2) if of_task else task_rows(2),
        safety=[long] * 4,
        per_device_train_batch_size=2 if of_task else 1,
        max_steps=1,
        max_length=None,
        **config if of_task else {"replay_ratio": 4.0, **config},
    )
    move_off_the_anchor(trainer)
    with allocations() as found:
        trainer.train()
    assert trainer.state.global_step == 1
    tokens = 2 * 40 if of_task else 4 * 40
    assert found.largest < tokens * VOCAB * FLOAT * (0.75 if of_task else 0.25)


def test_a_naive_training_step_is_seen(tmp_path):
    model = make_model(vocab_size=VOCAB, hidden_size=16)
    trainer = make_trainer(tmp_path, "none", model=model, cls=NaiveDER, train=task_rows(2), max_steps=1)
    trainer.replay, trainer.replay_rows = [TokenizedRow([*range(40)], [*range(40)])] * 4, 4
    with allocations() as found:
        trainer.train()
    assert found.largest >= 4 * 40 * VOCAB * FLOAT
