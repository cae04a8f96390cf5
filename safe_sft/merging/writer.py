"""Writes safetensors files tensor by tensor, with the shards and names that `from_pretrained` expects.

A shard's header holds the place of every tensor, and all shapes are known before the first tensor is computed. So the
header goes first and the tensors follow: no shard is ever held in memory. Format:
https://huggingface.co/docs/safetensors/index#format
"""

import json
from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.folders import index_name, shard_name
from ..storage.writing import complete_file, write_json
from .checkpoint import DTYPES

_CODES = {dtype: code for code, dtype in DTYPES.items()}


class Entry(NamedTuple):
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size in the file, in bytes."""
        return prod(self.shape) * self.dtype.itemsize


def write_shards(
    folder: Path,
    stem: str,
    entries: Sequence[Entry],
    blocks: Callable[[Entry], Iterable[Tensor]],
    max_shard_size: int | None = None,
) -> None:
    """Write `entries` as `<stem>.safetensors`, or as shards with an index where one file would be too large.

    Args:
        folder: folder that exists.
        stem: what the file names begin with: `MODEL` or `ADAPTER`.
        entries: the tensors to write, in the order in which they are computed.
        blocks: the content of an entry: flat tensors of its dtype, one after the other.
        max_shard_size: most bytes of a shard; only a single larger tensor makes a larger one. None sets no limit.
    """
    shards = _shards(entries, max_shard_size)
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = shard_name(stem, number, len(shards))
        _write_file(folder / file, shard, blocks)
        weight_map.update({entry.name: file for entry in shard})
    if len(shards) == 1:
        return
    totals = {
        "total_parameters": sum(prod(entry.shape) for entry in entries),
        "total_size": sum(entry.bytes for entry in entries),
    }
    index = {"metadata": totals, "weight_map": dict(sorted(weight_map.items()))}
    # The index goes last: without it, a part of the shards is not a model.
    write_json(folder / index_name(stem), index)


def _shards(entries: Sequence[Entry], max_shard_size: int | None) -> list[list[Entry]]:
    shards: list[list[Entry]] = [[]]
    room = float("inf") if max_shard_size is None else max_shard_size
    for entry in entries:
        if entry.bytes > room and shards[-1]:
            shards.append([])
            room = max_shard_size or 0
        shards[-1].append(entry)
        room -= entry.bytes
    return shards


def _write_file(path: Path, shard: Sequence[Entry], blocks: Callable[[Entry], Iterable[Tensor]]) -> None:
    # Wider dtypes first, so that every tensor starts at a multiple of its item size.
    ordered = sorted(shard, key=lambda entry: -entry.dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in ordered:
        start, end = end, end + entry.bytes
        header[entry.name] = {
            "dtype": _CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with complete_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in ordered:
            for block in blocks(entry):
                file.write(block.contiguous().view(torch.uint8).numpy().data)
