"""The loss on held-out rows of the task: what a model has learned, whatever the task is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ...data.batch import ReplayBatch
from ...data.files import load_rows
from ...data.forms import completion_of, prompt_of
from ...data.rendering import text_tokenizer
from ...data.safety_rows import SafetyRow, template_options
from ...data.subset import evenly_spread
from ...data.tokenization import TokenizedRow, answered, tokenize_row
from ...data.values import check_training_rows
from ...losses import token_cross_entropy
from ...models.generation import length_sorted_batches
from ...models.modes import without_dropout
from ...models.parts import LogitHead, backbone
from ..statistics import Z_95


@dataclass(frozen=True)
class TaskRows:
    """Held-out rows that a loss is measured on.

    Attributes:
        name: name that tables show.
        rows: rows of `prompt` and `completion`, `messages`, or text.
        source: where the rows come from.
        text_field: name of the column of text.
        max_length: most tokens of a row; what is longer is cut off at the end.
        options: further variables of the chat template, such as `enable_thinking`; those of a row win.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    source: str
    text_field: str = "text"
    max_length: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskLoss:
    """How well a model predicts the answers of held-out rows.

    Attributes:
        model: name of the model.
        task: name of the task.
        source: where the rows come from.
        sums: sum of the losses of each row's supervised tokens, in nats.
        tokens: number of the supervised tokens of each row.
    """

    model: str
    task: str
    source: str
    sums: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def value(self) -> float:
        """The mean over supervised tokens, in nats."""
        return sum(self.sums) / sum(self.tokens)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of a mean over the tokens of rows that were drawn as a whole (ratio estimate)."""
        return _half_width(self.sums, self.tokens)

    def increase_over(self, other: "TaskLoss") -> tuple[float, float] | None:
        """Return by how much the mean is above another model's, and half of the 95 % interval, row by row.

        Args:
            other: what another model loses on the same rows.

        Returns:
            Nats per token; None where the rows have other tokens with the other model.
        """
        if self.tokens != other.tokens:
            return None
        more = [mine - theirs for mine, theirs in zip(self.sums, other.sums, strict=True)]
        return sum(more) / sum(self.tokens), _half_width(more, self.tokens)

    def as_dict(self) -> dict[str, Any]:
        """Return the mean, its interval and the number of rows, as plain values."""
        ends = {"low": max(0.0, self.value - self.half_width), "high": self.value + self.half_width}
        return {"value": self.value, **ends, "n": len(self.sums)}

    def __str__(self) -> str:
        """Return the mean, and the half width of its interval."""
        return f"{self.value:.3f} ± {self.half_width:.3f}"


def _half_width(sums: Sequence[float], tokens: Sequence[int]) -> float:
    n, mean = len(sums), sum(sums) / sum(tokens)
    residuals = (total - mean * count for total, count in zip(sums, tokens, strict=True))
    return Z_95 * sqrt(n / max(1, n - 1) * sum(r * r for r in residuals)) / sum(tokens)


def task_rows(path: str, limit: int | None = None) -> TaskRows:
    """Load held-out rows from a file or the Hub.

    Args:
        path: file or Hub name of rows of `prompt` and `completion`, `messages`, or `text`.
        limit: most rows that are used, evenly spread; None for all.

    Raises:
        ValueError: when the rows have none of these columns, or for a row that cannot be used.
    """
    found = load_rows(path, split="train")
    forms = ({"messages"}, {"prompt", "completion"}, {"text"})
    if not any(form <= set(found.column_names) for form in forms):
        raise ValueError(
            f"'{path}' has the columns {found.column_names}. A task loss needs `prompt` and `completion`, `messages` "
            "or `text`; rename them."
        )
    check_training_rows(found, "text", path)
    return TaskRows("task", evenly_spread(found, limit), path)


@torch.no_grad()
def measure_task_loss(
    model: nn.Module, processing_class: Any, task: TaskRows, batch_size: int = 32, *, name: str
) -> TaskLoss:
    """Measure the loss of a model on the answers of held-out rows, without building logits for all of them.

    Args:
        model: the model, on its device.
        processing_class: the model's tokenizer or processor.
        task: the rows.
        batch_size: rows at a time.
        name: name of the model.

    Raises:
        ValueError: when no row keeps a token of its answer.
    """
    tokenizer = text_tokenizer(processing_class)
    rows = [found for row in task.rows if (found := _tokenized(processing_class, row, task)).supervised_tokens]
    if not rows:
        raise ValueError(
            f"None of the {len(task.rows)} rows of '{task.source}' has an answer whose loss is measured. Give rows "
            "that have one, within the length that a row is cut to."
        )
    head, sums = LogitHead.of(model).gathered(), [0.0] * len(rows)
    device = next(model.parameters()).device
    with without_dropout(model):
        for places in length_sorted_batches([len(row.input_ids) for row in rows], batch_size):
            batch = ReplayBatch.of(rows, places, device)
            states = backbone(model)(**batch.padded(tokenizer.pad_token_id or 0), use_cache=False).last_hidden_state
            hidden = states.reshape(-1, states.size(-1)).index_select(0, batch.padded_index(states.size(1)))
            losses = token_cross_entropy(hidden.to(head.weight.device), head, batch.targets.to(head.weight.device))
            counts = [rows[place].supervised_tokens for place in places]
            for place, part in zip(places, losses.cpu().split(counts), strict=True):
                sums[place] = part.double().sum().item()
    return TaskLoss(name, task.name, task.source, tuple(sums), tuple(row.supervised_tokens for row in rows))


def _tokenized(processing_class: Any, row: Mapping[str, Any], task: TaskRows) -> TokenizedRow:
    """Tokenise a row as TRL trains on it: chat by the template, text as it is; the answer is labelled."""
    prompt, tokenizer = prompt_of(row), text_tokenizer(processing_class)
    if not prompt:
        return answered([], _ids(tokenizer, str(row.get(task.text_field) or "")), task.max_length)
    if isinstance(prompt, str):
        ids = _ids(tokenizer, prompt + completion_of(row) + (tokenizer.eos_token or ""))
        return answered(_ids(tokenizer, prompt), ids, task.max_length)
    pair = SafetyRow(prompt, completion_of(row), template_options(row, f"A row of '{task.source}'"))
    return tokenize_row(processing_class, pair, task.max_length, task.options)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])
