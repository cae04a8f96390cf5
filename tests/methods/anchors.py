"""A model whose importance can be worked out on paper: only its head is trained."""

from types import SimpleNamespace

import torch

from safe_sft.data import TokenizedRow
from safe_sft.methods import Preparation, StepContext
from tests.conftest import make_model, make_tokenizer

#: Two rows that supervise one token each, the first and second after the prompt `1 3`.
ROWS = [TokenizedRow([1, 3, 4], [-100, -100, 4]), TokenizedRow([1, 3, 5], [-100, -100, 5])]
STEP = StepContext(first_micro_step=True)


def head_only_model(vocab: int = 8):
    """All of it is frozen but the head, which is zero."""
    model = make_model(vocab_size=vocab)
    model.requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    return model


def hidden_state(model) -> torch.Tensor:
    """What predicts the answer: `(d,)`."""
    with torch.no_grad():
        return model.model(torch.tensor([[1, 3]])).last_hidden_state[0, -1]


def setup(model, **fields) -> Preparation:
    """A preparation whose rows are `ROWS`."""
    defaults = {
        "device": torch.device("cpu"),
        "importance_space": None,
        "importance_estimator": "empirical",
        "penalty_normalization": "none",
        "importance_path": None,
        "importance_previous": None,
        "preparation_store": None,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 2,
        "seed": 0,
    }
    return Preparation(model, SimpleNamespace(**{**defaults, **fields}), lambda: ROWS, make_tokenizer())
