"""Remembers the aligned model's states of replayed rows, so that each row is run once, and not in every replay."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..data.batch import ReplayBatch
from ..data.tokenization import TokenizedRow

#: Returns the aligned model's states of a batch, `(tokens, d)`.
Compute = Callable[[ReplayBatch], Tensor]


class TeacherMemory:
    """The aligned model's states of safety rows in the host's memory, each rank its own.

    A row that may be remembered is run alone, so that its states are a function of the row, and not of the batch in
    which it was first replayed: a resumed run, whose memory is empty, computes the same numbers. Which rows these are
    does not depend on the run either: as many as fit, from the last row on.

    Args:
        rows: the safety rows.
        limit: most bytes of states that are kept.
    """

    def __init__(self, rows: Sequence[TokenizedRow], limit: int):
        self._rows, self._limit = rows, limit
        self._first: int | None = None
        self._states: dict[int, Tensor] = {}
        self._known_to: dict[int, set[int]] = {}

    @property
    def size(self) -> int:
        """Number of bytes that are kept."""
        return sum(states.nbytes for states in self._states.values())

    def hidden(self, replay: ReplayBatch, compute: Compute, everyone: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Return the states of replayed rows, `(tokens, d)`, and compute those that are not remembered.

        Args:
            replay: the rows that this rank replays now.
            compute: runs the aligned model.
            everyone: the rows that each rank replays now, where every rank must run the same number of forwards; None
                where each may run its own.
        """
        first = self._first_kept(compute, replay.device)
        new = [row for row in dict.fromkeys(replay.rows) if row >= first and row not in self._states]
        for row in new:
            self._states[row] = compute(self._batch([row], replay.device)).cpu()
        passing = [row for row in replay.rows if row < first]
        states = self._split(passing, compute, replay.device)
        if everyone is not None:
            for _ in range(self._most_forwards(everyone, first) - len(new) - bool(passing)):
                compute(self._batch([len(self._rows) - 1], replay.device))
        return torch.cat([states[row] if row < first else self._states[row].to(replay.device) for row in replay.rows])

    def _first_kept(self, compute: Compute, device: torch.device) -> int:
        """Return the first of the rows that are kept; at the first call, run the last row to see how large states are.

        The last rows go first: where some rows come from the task, these are the last, and replayed most often.
        """
        if self._first is None:
            row = len(self._rows)
            last = compute(self._batch([row - 1], device))
            left, token = self._limit, last[0].nbytes
            while row and (left := left - self._rows[row - 1].supervised_tokens * token) >= 0:
                row -= 1
            self._first = row
            if row < len(self._rows):
                self._states[len(self._rows) - 1] = last.cpu()
        return self._first

    def _split(self, rows: list[int], compute: Compute, device: torch.device) -> dict[int, Tensor]:
        """Run `rows` in one forward, if there are any; returns the states of each."""
        if not rows:
            return {}
        sizes = [self._rows[row].supervised_tokens for row in rows]
        return dict(zip(rows, compute(self._batch(rows, device)).split(sizes), strict=True))

    def _most_forwards(self, everyone: Sequence[Sequence[int]], first: int) -> int:
        """Return the most forwards that a rank runs now: each can tell what all remember, from what all replayed."""
        counts = []
        for rank, rows in enumerate(everyone):
            known = self._known_to.setdefault(rank, {len(self._rows) - 1} if first < len(self._rows) else set())
            new = {row for row in rows if row >= first} - known
            known |= new
            counts.append(len(new) + any(row < first for row in rows))
        return max(counts)

    def _batch(self, rows: Sequence[int], device: torch.device) -> ReplayBatch:
        return ReplayBatch.of(self._rows, rows, device)
