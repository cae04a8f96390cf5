"""What a repair trains on: a handful of safety rows, with what the aligned model makes of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..data.batch import ReplayBatch
from ..data.safety_rows import Messages
from ..data.subset import evenly_spread
from ..evaluation import RefusalPhrases, Verdict
from ..losses import token_cross_entropy, token_divergence
from ..models.modes import without_dropout
from ..models.parts import LogitHead, backbone
from ..replay import HiddenStateTap
from ..trainer.safety_set import SafetySet

logger = get_logger(__name__)

#: Fewer rows than this are no lesson.
FEWEST = 4


@dataclass(frozen=True)
class Lessons:
    """The safety rows, before any model has seen them.

    Attributes:
        safety: the rows.
        args: how they are tokenised: longest row, longest answer, chat template.
        method: `er` (cross-entropy on the answers) or `der` (divergence from the aligned model on them).
    """

    safety: SafetySet
    args: SafeSFTConfig
    method: str

    @classmethod
    def of(
        cls, rows: Iterable[Mapping[str, Any]] | None, name: str, size: int, method: str, args: SafeSFTConfig
    ) -> "Lessons":
        """Read and check the rows, and take `size` of them, evenly spread.

        Args:
            rows: safety rows; None takes the built-in prompts, which the aligned model answers itself.
            name: what they are called in error messages.
            size: most rows that are used.
            method: `er` or `der`.
            args: how they are tokenised.

        Raises:
            ValueError: when a row cannot be read, or most answers agree to what they are asked.
        """
        found = SafetySet.read(rows, name)
        return cls(SafetySet(tuple(evenly_spread(found.rows, size)), found.name), args, method)

    @property
    def prompts(self) -> list[str | Messages]:
        """The requests."""
        return [row.prompt for row in self.safety.rows]

    def learned(self, aligned: nn.Module, tokenizer: PreTrainedTokenizerBase) -> "Taught":
        """Let the aligned model answer, keep the rows that it refuses, and read off what its outputs are on them.

        Args:
            aligned: the aligned model, on its device.
            tokenizer: the tokenizer of the model that is repaired.

        Raises:
            ValueError: when the aligned model refuses too few of the rows.
        """
        given = [row for row in self.safety.rows if row.completion is not None]
        alone = [row for row in self.safety.rows if row.completion is None]
        rows = SafetySet(tuple(given)).tokenize(aligned, tokenizer, self.args) if given else []
        if alone:
            rows += _refused(SafetySet(tuple(alone)).tokenize(aligned, tokenizer, self.args), tokenizer)
        rows = [row.beginning(self.args.replayed_tokens) for row in rows]
        if self.method == "er":
            return Taught(tuple(rows))
        tap, device = HiddenStateTap(backbone(aligned), tokenizer.pad_token_id or 0), next(aligned.parameters()).device
        with torch.no_grad(), without_dropout(aligned):
            states = [tap.forward_rows(aligned, ReplayBatch.of(rows, [k], device)).cpu() for k in range(len(rows))]
        tap.close()
        return Taught(tuple(rows), tuple(states), LogitHead.of(aligned).gathered().frozen_copy())


def _refused(rows: Sequence[TokenizedRow], tokenizer: PreTrainedTokenizerBase) -> list[TokenizedRow]:
    """Return the rows whose answer refuses: what the aligned model complies with must not be taught."""
    answers = tokenizer.batch_decode(
        [[token for token in row.labels if token != -100] for row in rows], skip_special_tokens=True
    )
    judge = RefusalPhrases()
    kept = [row for row, text in zip(rows, answers, strict=True) if judge("", text) is Verdict.REFUSED]
    if len(kept) < FEWEST:
        raise ValueError(
            f"The aligned model refuses {len(kept)} of the {len(rows)} safety rows, and at least {FEWEST} refusals "
            "are needed to repair with. Check `--aligned`, or give rows that have answers as `--safety_dataset`."
        )
    if len(kept) < len(rows):
        logger.warning(f"{len(rows) - len(kept)} of {len(rows)} safety rows, which are not refused, are left out.")
    return kept


@dataclass(frozen=True)
class Taught:
    """Safety rows with what the aligned model makes of them.

    Attributes:
        rows: the rows, cut to the beginnings of their answers.
        states: for each row, the aligned model's hidden states that predict its answer, `(tokens, d)`; none for `er`.
        head: the aligned model's head; None for `er`.
    """

    rows: tuple[TokenizedRow, ...]
    states: tuple[Tensor, ...] = ()
    head: LogitHead | None = None

    def loss(self, model: nn.Module, tap: HiddenStateTap, places: Sequence[int]) -> Tensor:
        """Return the mean over the supervised tokens of some rows, in nats.

        Args:
            model: the model that is repaired, on its device.
            tap: reads the hidden states off its backbone.
            places: which rows.

        Raises:
            ValueError: when the two models have other vocabularies.
        """
        device = next(model.parameters()).device
        batch = ReplayBatch.of(self.rows, places, device)
        hidden, head = tap.forward_rows(model, batch), LogitHead.of(model)
        if self.head is None:
            return token_cross_entropy(hidden, head, batch.targets).mean()
        if self.head.weight.shape != head.weight.shape:
            raise ValueError(
                f"The aligned model's head is {tuple(self.head.weight.shape)}, that of the model "
                f"{tuple(head.weight.shape)}, so their outputs cannot be compared. Give `--method er`."
            )
        taught = torch.cat([self.states[place] for place in places]).to(device)
        return token_divergence(hidden, head, taught, self.head.to(device), beta=0.0).mean()
