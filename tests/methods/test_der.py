"""The updates of DER and DER++ against materialised logits, in float64: by the Gram form and by tiles."""

import pytest
import torch
from torch.nn import functional as F
from transformers import Gemma2Config, Gemma2ForCausalLM
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

from safe_sft.replay import ReplayBatch
from tests.conftest import make_model, make_trainer, move_off_the_anchor, trained_weights
from tests.trainer.test_ways_to_train import SIZES

#: Gemma's attention takes its softmax, and TRL's kernel the cross-entropy of `er`, in float32.
TOLERANCE = {"der": 1e-7, "der++": 1e-6}


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch):
    """Gemma's norms round to float32 even in a float64 model; rows alone and in a batch then differ by that."""
    monkeypatch.setattr(Gemma2RMSNorm, "forward", lambda self, x: self._norm(x) * (1.0 + self.weight))


def capped_model() -> Gemma2ForCausalLM:
    torch.manual_seed(0)
    settings = {"head_dim": 8, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8}
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, **settings)).double()


def train(folder, model, method: str, weight: str, peft: bool, teacher: str):
    """A trainer off the anchor, its weights there, and those after a step of plain gradient descent."""
    trainer = make_trainer(
        folder,
        method,
        model=model,
        peft=peft,
        safety_weight=weight,
        teacher=teacher,
        teacher_divergence="squared",
        replay_max_answer_tokens=None,
        replay_ratio=0.75,
        learning_rate=1e-3,
        max_steps=1,
    )
    move_off_the_anchor(trainer)
    before = trained_weights(trainer)
    trainer.train()
    return trainer, before, trained_weights(trainer)


@pytest.mark.parametrize("method", ["der", "der++"])
@pytest.mark.parametrize(
    ("model", "peft", "teacher"),
    [
        (lambda: make_model(dtype=torch.float64), True, "online"),
        (lambda: make_model(dtype=torch.float64), True, "cached"),
        (lambda: make_model(dtype=torch.float64), False, "cached"),
        (capped_model, True, "online"),
    ],
    ids=["Gram, online", "Gram, cached", "trained head", "capped logits"],
)
def test_the_update_is_that_of_materialised_logits(tmp_path, monkeypatch, method, model, peft, teacher):
    monkeypatch.setattr(
        "safe_sft.trainer.step_states.joining_is_cheaper", lambda *_: False
    )  # equal task updates, to the bit
    with_term, without = ("1.0", "0.0") if method == "der" else ("1.0+1.0", "0.0+0.0")
    _, _, plain = train(tmp_path, model(), method, without, peft, teacher)
    trainer, before, moved = train(tmp_path, model(), method, with_term, peft, teacher)

    aligned = model()
    parameters = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(before[name])
    batch = ReplayBatch.of(trainer._tokenized_rows(), trainer._states.schedule.rows(0, 4), torch.device("cpu"))
    losses = []
    for row, ids in enumerate(batch.input_ids):
        positions = [position for k, position in batch.predictors if k == row]
        with torch.no_grad():
            teacher_logits = aligned(ids[None]).logits[0, positions]
        logits = trainer.model(ids[None]).logits[0, positions]
        losses.append((logits - teacher_logits).square().sum(-1))
        if method == "der++":
            losses[-1] = losses[-1] + F.cross_entropy(logits, ids[torch.tensor(positions) + 1], reduction="none")
    loss = torch.cat(losses).mean()
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    ours = torch.cat([(plain[name] - moved[name]).flatten() / 1e-3 for name in gradients])
    expected = torch.cat([gradient.flatten() for gradient in gradients.values()])
    assert ((ours - expected).norm() / expected.norm()).item() < TOLERANCE[method]
