"""The aligned model's loss on each supervised token of the task: one number a token, computed once before training.

A method that needs no more of the aligned model (`keeps_task_losses`) so works where that model is not at hand in
training: in full tuning, and with an adapter that was trained before. It also spares the aligned model's forward in
each epoch.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from ..data import TokenizedRow
from ..data.batch import ReplayBatch
from ..losses import token_cross_entropy
from ..models.adapters import aligned_without_adapter
from ..models.parts import LogitHead
from ..replay import HiddenStateTap, TeacherCache, teacher_kind
from .teacher import cached_before_training, teacher_provenance


class TaskLosses:
    """Finds the aligned model's losses of the rows of a batch.

    Args:
        cache: their losses.
        rows: the rows that it was made of, in order.
    """

    def __init__(self, cache: TeacherCache, rows: Sequence[TokenizedRow]):
        self._cache = cache
        self._places = {_key(row): place for place, row in enumerate(rows)}

    def of(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return −log p₀ of each supervised token of `inputs`, `(tokens,)`, in nats.

        Args:
            inputs: a batch of task rows, padded or flattened, with labels.

        Raises:
            ValueError: for a row that the training set did not have before training.
        """
        places = [self._places.get(_key(row)) for row in supervised_rows(inputs)]
        known = [place for place in places if place is not None]
        if len(known) < len(places):
            raise ValueError(
                "A row of this batch was not in the training set when the aligned model's losses were computed. Give "
                "rows that a `data_collator` or callback does not change, or train a fresh LoRA adapter with "
                "`teacher: online`."
            )
        return self._cache.rows(known) if known else torch.zeros(0)


def task_losses(trainer: Any, tap: HiddenStateTap) -> TaskLosses | None:
    """Compute the aligned model's losses where a method of the run reads them; None where it runs the model instead.

    Args:
        trainer: a trainer whose training set is tokenised.
        tap: reads the hidden states off the model's backbone.
    """
    if not keeps_task_losses(trainer):
        return None
    args, model = trainer.args, trainer.model
    rows = list({_key(row): row for row in _training_rows(trainer.train_dataset, trainer.data_collator)}.values())
    provenance = {"of": "task losses", **teacher_provenance(model, trainer.processing_class, rows, args)}

    def losses(batch: ReplayBatch) -> Tensor:
        hidden = tap.forward_rows(model, batch)
        return token_cross_entropy(hidden, LogitHead.of(model).gathered().to(hidden.device), batch.targets)

    with trainer.accelerator.autocast():
        cache = cached_before_training("task-losses", losses, model, rows, provenance, args)
    return TaskLosses(cache, rows)


def keeps_task_losses(trainer: Any) -> bool:
    """Return whether a method of the run reads losses that are computed before training."""
    kind = teacher_kind(trainer.args.teacher, None, switchable=aligned_without_adapter(trainer.model))
    return kind == "cached" and any(method.keeps_task_losses for method, _ in trainer.args.safety_terms)


def supervised_rows(inputs: Mapping[str, Any]) -> list[TokenizedRow]:
    """Take a batch apart into its rows, without padding; rows that supervise nothing are left out.

    Args:
        inputs: a batch, padded (with an `attention_mask`) or flattened (with `position_ids`), with labels.
    """
    ids, labels = inputs["input_ids"].cpu(), inputs["labels"].cpu()
    mask = inputs.get("attention_mask")
    if mask is not None:
        parts = [(ids[row][kept], labels[row][kept]) for row, kept in enumerate(mask.bool().cpu())]
    else:
        starts = (inputs["position_ids"][0].cpu() == 0).nonzero().flatten()[1:]
        parts = list(zip(ids[0].tensor_split(starts), labels[0].tensor_split(starts), strict=True))
    rows = [TokenizedRow(one.tolist(), other.tolist()) for one, other in parts]
    return [row for row in rows if row.supervised_tokens]


def _training_rows(dataset: Dataset, collator: Any) -> list[TokenizedRow]:
    """Return the rows of the training set as a batch shows them; a packed one counts as those that it holds."""
    return [row for example in dataset for row in supervised_rows(collator([example]))]


def _key(row: TokenizedRow) -> bytes:
    return hashlib.blake2b(json.dumps([row.input_ids, row.labels]).encode(), digest_size=16).digest()
