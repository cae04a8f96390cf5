"""Scores training rows, part by part, each process its share."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from tqdm.auto import tqdm

from ..data.builtin import builtin_prompts
from ..data.poison import affirmative_opening
from ..data.rendering import TemplateOptions, text_tokenizer
from ..data.safety_rows import Messages
from ..data.subset import evenly_spread
from ..evaluation.judges import Judge
from ..models.finite import NotFinite, require_finite
from ..models.identity import model_identity
from ..models.modes import without_dropout
from .closeness import Closeness
from .openings import Openings, find_openings
from .parts import Parts
from .rows import Exchange, TokenizedExchange, exchanges, tokenize
from .score import RowScore, score_of
from .signals import BEGINNING, Reader, Signals

#: Rows that are scored, and kept on disk, together.
PART_ROWS = 256
#: Safety requests that rows are compared with: at most and at least so many.
DECOYS, LEAST = 256, 20
#: To be raised when the scores of the same rows and model change.
_VERSION = 2

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """How rows are looked at.

    Attributes:
        max_length: most tokens of a row; what is longer is cut off at the end.
        batch_size: rows at a time, per device.
        options: further variables of the chat template.
    """

    max_length: int = 1024
    batch_size: int = 16
    options: TemplateOptions = field(default_factory=dict)


class Screener:
    """The aligned model, ready to score rows. Every process makes one, and calls the same methods.

    Args:
        model: the aligned model, on its device.
        processing_class: its tokenizer or processor.
        safety: safety requests, which rows are compared with.
        settings: how rows are looked at.
        judges: judges of each row's answer; none by default.
        refusals: how the model refuses, in words; by default it is asked.
        folder: folder that keeps scores, which every process sees; None keeps none.

    Raises:
        ValueError: when the model's weights are not finite, or it refuses hardly any harmful request.
    """

    def __init__(
        self,
        model: nn.Module,
        processing_class: Any,
        safety: Sequence[str | Messages],
        settings: Settings | None = None,
        *,
        judges: Sequence[Judge] = (),
        refusals: Sequence[str] = (),
        folder: Path | None = None,
    ):
        require_finite(model)
        self._model, self._processing_class, self._judges = model, processing_class, judges
        self._settings = settings = settings or Settings()
        tokenizer = text_tokenizer(processing_class)
        self.openings = (
            Openings.given(refusals, tokenizer)
            if refusals
            else find_openings(model, processing_class, settings.options, batch_size=settings.batch_size)
        )
        self._reader = Reader(model, tokenizer.pad_token_id or 0, self.openings, settings.batch_size)
        decoys = self._answered(evenly_spread([request for request in safety if request], DECOYS))
        look_alikes = [prompt.prompt for prompt in builtin_prompts("over_refusal")]
        harmless = self._answered(evenly_spread(look_alikes, len(decoys)))
        common = {
            "version": _VERSION,
            "model": model_identity(model, tokenizer),
            "openings": self.openings.tokens,
            "beginning": BEGINNING,
            "compared": [one.row.input_ids for one in (*decoys, *harmless)],
            "settings": asdict(settings),
        }
        self._parts = Parts(folder, common)
        with self._as_aligned():
            self._reader.choose_way(decoys)
            signals = self._reader.read([*decoys, *harmless])
        states = torch.stack([signal.state for signal in signals])
        self._closeness = close = Closeness(states[: len(decoys)], states[len(decoys) :])
        read = zip(signals, [*close.harmful, *close.harmless], strict=True)
        scores = tuple(score_of(place, 0, signal, one).known for place, (signal, one) in enumerate(read))
        #: Scores of made-up poison: the safety requests, each with an affirmative opening and nothing more; and of
        #: harmless requests that merely sound dangerous, answered so.
        self.decoys, self.look_alikes = scores[: len(decoys)], scores[len(decoys) :]

    def score(self, rows: Iterable[Row], name: str, total: int | None = None) -> Iterator[list[tuple[Row, RowScore]]]:
        """Yield rows with their scores, some parts at a time, in order, the same on every process; in one pass.

        Args:
            rows: the training rows, streamed or not.
            name: what they are called in error messages.
            total: how many they are, for the progress bar; None where it is not known.

        Raises:
            ValueError: for a row that cannot be scored; the message names it.
        """
        state, first = PartialState(), 0
        bar = tqdm(total=total, desc="Screening", unit="row", disable=not state.is_main_process)
        with bar:
            source = iter(rows)
            while window := list(islice(source, PART_ROWS * state.num_processes)):
                start = PART_ROWS * state.process_index
                part = window[start : start + PART_ROWS]
                mine = self._part(part, first + start, name) if part else []
                found = gather_object(mine) if state.num_processes > 1 else mine
                yield list(zip(window, found, strict=True))
                first += len(window)
                bar.update(len(window))

    def _part(self, rows: Sequence[Row], first: int, name: str) -> list[RowScore]:
        """Return the scores of a part, from disk where they are known."""
        known = self._parts.get(rows)
        if known is not None:
            found = [RowScore.from_dict({**score, "index": first + place}) for place, score in enumerate(known)]
        else:
            found = self._scored(rows, first, name)
            self._parts.put(rows, [score.as_dict() for score in found])
        return self._judged(rows, found, name)

    def _scored(self, rows: Sequence[Row], first: int, name: str) -> list[RowScore]:
        """Score every answer of every row; of a row with several, the worst counts."""
        places, tokens = [], []
        for place, row in enumerate(rows):
            for turn, exchange in enumerate(exchanges(row, first + place, name)):
                if (one := self._tokenized(exchange, row, f"Row {first + place} of '{name}'")) is not None:
                    places.append((place, turn))
                    tokens.append(one)
        with self._as_aligned():
            signals = self._reader.read(tokens)
        close = self._closeness.of(torch.stack([signal.state for signal in signals])) if signals else []
        _require_finite(signals, [f"Row {first + place} of '{name}'" for place, _ in places])
        worst: dict[int, RowScore] = {}
        for (place, turn), signal, closeness in zip(places, signals, close, strict=True):
            score = score_of(first + place, turn, signal, closeness)
            if place not in worst or score.known > worst[place].known:
                worst[place] = score
        return [worst.get(place, RowScore(first + place)) for place in range(len(rows))]

    def _answered(self, requests: Sequence[str | Messages]) -> list[TokenizedExchange]:
        """Return requests with an affirmative opening of an answer, as far as they fit.

        Raises:
            ValueError: when fewer than `LEAST` fit.
        """
        pairs = [Exchange(request, affirmative_opening(request)) for request in requests]
        found = [self._tokenized(pair, {}, f"Safety row {place}") for place, pair in enumerate(pairs)]
        kept = [TokenizedExchange(one.row.beginning(BEGINNING), one.request) for one in found if one is not None]
        if len(kept) < LEAST:
            raise ValueError(
                f"{len(kept)} safety requests fit into `max_length={self._settings.max_length}`, and at least {LEAST} "
                "are needed to compare rows with. Give more of them, or raise it."
            )
        return kept

    def _tokenized(self, exchange: Exchange, row: Row, where: str) -> TokenizedExchange | None:
        how = self._settings
        return tokenize(self._processing_class, exchange, row, where, max_length=how.max_length, options=how.options)

    def _judged(self, rows: Sequence[Row], scores: Sequence[RowScore], name: str) -> list[RowScore]:
        """Add the verdict of each judge on the answer that a score is of."""
        if not self._judges or not rows:
            return list(scores)
        judged = [exchanges(row, score.index, name)[score.turn] for row, score in zip(rows, scores, strict=True)]
        asked, said = [one.asked for one in judged], [one.said for one in judged]
        verdicts = {judge.name: judge.judge(asked, said) for judge in self._judges}
        return [
            score.with_verdicts({name: found[place].value for name, found in verdicts.items()})
            for place, score in enumerate(scores)
        ]

    def _as_aligned(self) -> AbstractContextManager[None]:
        return without_dropout(self._model)


def _require_finite(signals: Sequence[Signals], where: Sequence[str]) -> None:
    """Raise an error for numbers that say nothing, which would look like a row that nothing speaks against."""
    for signal, place in zip(signals, where, strict=True):
        if not all(map(math.isfinite, (signal.refusal, signal.answer_nll, signal.beginning_nll))):
            raise NotFinite(
                f"{place} has a likelihood that is NaN or infinite, so its score means nothing. Run the model in a "
                "dtype with a wider range, such as bfloat16 or float32."
            )
