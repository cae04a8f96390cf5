"""Unfinished sums on disk, so that a stopped estimation goes on where it was."""

import time
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from ..storage.damage import undamaged
from ..storage.writing import remove_unfinished, write_tensors


class PartialSums:
    """The sums of one rank after some of its batches.

    Args:
        path: path of the file; its folder is made.
        request: digest of all that the sums depend on; a file with another digest is ignored.
        seconds: time between one saving and the next.
    """

    def __init__(self, path: Path, request: str, seconds: float = 30.0):
        self._path = path
        self._request = request
        self._seconds = seconds
        self._saved = time.monotonic()

    def load(self, sums: dict[str, Tensor]) -> int:
        """Put the saved sums into `sums`; returns how many batches are done (0 where nothing was saved)."""
        remove_unfinished(self._path)
        if not self._path.is_file():
            return 0
        with undamaged(self._path, "Remove it; the estimation then begins anew."), safe_open(self._path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("request") != self._request:
                return 0
            for name, value in sums.items():
                value.copy_(file.get_tensor(name))
            return int(metadata["batches"])

    def step(self, sums: dict[str, Tensor], batches: int) -> None:
        """Save the sums if it is time to; the file is written whole or not at all."""
        if time.monotonic() - self._saved >= self._seconds:
            write_tensors(self._path, sums, {"request": self._request, "batches": str(batches)})
            self._saved = time.monotonic()
