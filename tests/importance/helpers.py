"""Models, rows and the brute force that estimators are compared with: one sequence at a time, by autograd."""

from collections.abc import Callable

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

from safe_sft.data import TokenizedRow, read_safety_rows, tokenize_row
from safe_sft.importance import anchor_space
from safe_sft.importance.estimate import Estimation, estimate_importance
from tests.conftest import lora, make_model, make_tokenizer, safety_rows


def token_rows(count: int = 6) -> list[TokenizedRow]:
    """Tokenised safety rows of differing length."""
    return [tokenize_row(make_tokenizer(), row) for row in read_safety_rows(safety_rows(count))]


def lora_model(*, trained: bool = False, dtype: torch.dtype = torch.float64, model: dict | None = None, **overrides):
    """A LoRA model; its `B` is zero, or, if `trained`, not."""
    peft_model = get_peft_model(make_model(**(model or {})), lora(**overrides)).to(dtype)
    if trained:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in peft_model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return peft_model


def answer_logits(model: nn.Module, row: TokenizedRow) -> tuple[Tensor, Tensor]:
    """Materialised logits that predict the answer, `(tokens, vocab)`, and its tokens."""
    ids, labels = torch.tensor([row.input_ids]), torch.tensor(row.labels)[1:]
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
    return logits[labels != -100], labels[labels != -100]


def empirical(model: nn.Module, row: TokenizedRow) -> Tensor:
    """`−log p(answer)`, nats."""
    return F.cross_entropy(*answer_logits(model, row), reduction="sum")


def mas(model: nn.Module, row: TokenizedRow) -> Tensor:
    """Mean of `‖z‖²`."""
    return answer_logits(model, row)[0].square().sum(-1).mean()


OBJECTIVES: dict[str, Callable[[nn.Module, TokenizedRow], Tensor]] = {"empirical": empirical, "mas": mas}
POWERS: dict[str, Callable[[Tensor], Tensor]] = {"empirical": torch.square, "mas": torch.abs}


def brute_force(model: nn.Module, weights: dict[str, Tensor], rows: list[TokenizedRow], estimator: str):
    """Mean over rows of the squared (absolute) gradient of each of `weights`, dense."""
    was_trained = {weight: weight.requires_grad for weight in weights.values()}
    for weight in weights.values():
        weight.requires_grad_(True)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row in rows:
        gradients = torch.autograd.grad(
            OBJECTIVES[estimator](model.eval(), row), list(weights.values()), allow_unused=True
        )
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                sums[name] += POWERS[estimator](gradient)
    for weight, trained in was_trained.items():
        weight.requires_grad_(trained)
    return {name: value / len(rows) for name, value in sums.items()}


def lora_bases(model: PeftModel) -> dict[str, Tensor]:
    """The base weight of every LoRA layer, by the name of its pair: the gradient is that of the effective weight."""
    return {f"{name}.default": m.base_layer.weight for name, m in model.named_modules() if hasattr(m, "lora_A")}


def estimate(model, space, estimator="empirical", batch_size=4, rows=None, **kwargs):
    rows = rows if rows is not None else token_rows()
    anchored = anchor_space(model, space)
    return estimate_importance(model, anchored, rows, Estimation(estimator, batch_size, **kwargs))


def trainable(model) -> dict:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def assert_close(got, expected, tolerance=1e-8):
    """Relative to the largest number: what is far below it is rounding."""
    assert got.keys() == expected.keys()
    for name in got:
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=tolerance * scale, msg=name)


def margins(dense: dict) -> dict:
    return {
        f"{name}.{side}": matrix.sum(dim)
        for name, matrix in dense.items()
        for side, dim in (("rows", 1), ("columns", 0))
    }
