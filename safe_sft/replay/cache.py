"""Teacher states on disk: `d` numbers per supervised token, or one, read by memory map, built in parts.

A folder holds `part-00000.safetensors`, … and, once all of them are there, `index.json`. A part covers rows of similar
length, and depends on nothing but the model and its rows: ranks build parts of their own, and a build that was stopped
goes on where it was.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import safe_open
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data.batch import ReplayBatch
from ..data.tokenization import TokenizedRow
from ..models.generation import length_sorted_batches
from ..models.modes import without_dropout
from ..storage.damage import undamaged
from ..storage.hub import RemoteName
from ..storage.names import TEACHER_FILES, TEACHER_INDEX, teacher_part
from ..storage.teacher_index import read_teacher_index
from ..storage.writing import remove_unfinished, write_tensors, write_text

_ROWS_PER_PART = 256
#: What to do where a file of a cache is damaged.
_REMEDY = "Delete the folder, so that it is built anew, or set `teacher_cache` to another."

Provenance = Mapping[str, Any]


class TeacherCache:
    """The aligned model's states of every safety row.

    Args:
        folder: folder of a complete cache, from `build_teacher_cache`.

    Raises:
        FileNotFoundError: when the folder has no index: it was never completed.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = path = Path(folder)
        if not (path / TEACHER_INDEX).is_file():
            raise FileNotFoundError(
                f"'{path}' has no {TEACHER_INDEX}: the teacher cache is incomplete. Build it with `safe-sft teacher`."
            )
        index = read_teacher_index(path)
        self.provenance: dict[str, Any] = index["provenance"]
        self._slices: dict[int, tuple[Any, int, int]] = {}
        for number, part in enumerate(index["parts"]):
            with undamaged(path / teacher_part(number), _REMEDY):
                # The handle maps the file; only the slices that are asked for are read.
                states = safe_open(path / teacher_part(number), framework="pt").get_slice("states")
            with undamaged(path / TEACHER_INDEX, _REMEDY):
                start = 0
                for row, tokens in part:
                    self._slices[row] = (states, start, start + tokens)
                    start += tokens

    def rows(self, rows: Sequence[int]) -> Tensor:
        """Return the states of `rows`, `(tokens, d)`, in order; only these rows are read."""
        found = [self._slices[row] for row in rows]
        return torch.cat([states[start:end] for states, start, end in found])

    def require_fit(self, rows: Sequence[TokenizedRow]) -> None:
        """Check that there is a state for every supervised token of every row.

        Args:
            rows: the safety rows of this run.

        Raises:
            ValueError: for the first row whose number of states differs, or a part with fewer states than it lists.
        """
        if len(self._slices) != len(rows):
            raise ValueError(
                f"The teacher cache '{self.folder}' has states of {len(self._slices)} rows; this run has {len(rows)} "
                f"safety rows. {_REMEDY}"
            )
        for index, row in enumerate(rows):
            states, start, end = self._slices.get(index, (None, 0, 0))
            held = 0 if states is None else min(end, states.get_shape()[0]) - start
            if held != row.supervised_tokens:
                raise ValueError(
                    f"The teacher cache '{self.folder}' has {held} states of row {index}, which supervises "
                    f"{row.supervised_tokens} tokens. {_REMEDY}"
                )


def cached_date(name: str) -> str | None:
    """Return the date that the rows of a cache were rendered with; None where it records none, or is not there yet.

    Args:
        name: folder, or `hf://owner/name`, of a cache.

    Raises:
        FileNotFoundError: when the repository holds no complete cache.
        HubError: when the repository cannot be reached.
    """
    remote = RemoteName.parse(name)
    if remote is not None:
        with PartialState().local_main_process_first():
            name = str(remote.download(TEACHER_FILES))
    found = _provenance(Path(name)) or {}
    return None if found.get("date") is None else str(found["date"])


@torch.no_grad()
def build_teacher_cache(
    folder: str | os.PathLike[str],
    states: Callable[[ReplayBatch], Tensor],
    model: nn.Module,
    rows: Sequence[TokenizedRow],
    provenance: Provenance,
    *,
    batch_size: int,
    device: torch.device,
) -> TeacherCache:
    """Run the model as it is now over all rows, each rank its share of the parts; continue what is there.

    Args:
        folder: folder that every rank sees; created where it is missing.
        states: returns what is kept of the targets of a batch, `(tokens,)` or `(tokens, d)`; run without dropout.
        model: the aligned model.
        rows: the safety rows.
        provenance: what identifies this model and these rows, as plain JSON values.
        batch_size: rows at a time.
        device: device of the model.

    Raises:
        ValueError: when the folder belongs to another model or other rows.
    """
    path = Path(folder)
    _require_same_provenance(path, provenance)
    if not (path / TEACHER_INDEX).is_file():
        parts = list(length_sorted_batches([len(row.input_ids) for row in rows], _ROWS_PER_PART))
        header = {"provenance": json.dumps(provenance, sort_keys=True)}
        with without_dropout(model):
            for number in _missing(path, len(parts)):
                batches = [parts[number][i : i + batch_size] for i in range(0, len(parts[number]), batch_size)]
                found = [states(ReplayBatch.of(rows, batch, device)).cpu() for batch in batches]
                write_tensors(path / teacher_part(number), {"states": torch.cat(found)}, header)
        _complete(path, parts, rows, provenance)
    return TeacherCache(path)


def _missing(folder: Path, parts: int) -> Iterator[int]:
    """Yield this rank's share of the parts that are not there yet, with a progress bar."""
    state = PartialState()
    mine = range(state.process_index, parts, state.num_processes)
    for number in tqdm(mine, desc="Caching teacher states", unit="part", disable=not state.is_main_process):
        remove_unfinished(folder / teacher_part(number))
        if not (folder / teacher_part(number)).is_file():
            yield number


def _complete(folder: Path, parts: list[list[int]], rows: Sequence[TokenizedRow], provenance: Provenance) -> None:
    """Write the index, once every rank has written its parts."""
    state = PartialState()
    state.wait_for_everyone()
    if state.is_main_process:
        table = [[[row, rows[row].supervised_tokens] for row in part] for part in parts]
        write_text(folder / TEACHER_INDEX, json.dumps({"provenance": dict(provenance), "parts": table}))
    state.wait_for_everyone()


def download_teacher_cache(source: RemoteName, provenance: Provenance) -> TeacherCache:
    """Download a cache that was pushed to the Hub; returns it.

    Args:
        source: repository of the cache.
        provenance: what identifies the model and the rows of this run.

    Raises:
        FileNotFoundError: when the repository holds no complete cache.
        HubError: when the repository cannot be reached.
        ValueError: when the cache belongs to another model or other rows.
    """
    with PartialState().local_main_process_first():
        folder = source.download(TEACHER_FILES)
    _require_same_provenance(folder, provenance, f"hf://{source.repo}")
    return TeacherCache(folder)


def _require_same_provenance(folder: Path, wanted: Provenance, title: str | None = None) -> None:
    found = _provenance(folder)
    if found is None:
        return
    if found.get("rows") != wanted.get("rows") and found.get("date") != wanted.get("date"):
        raise ValueError(
            f"The chat template writes the date into every row, and the teacher cache '{title or folder}' was made "
            f"with {found.get('date') or 'a date that it does not record'}; this run has {wanted.get('date')}. Set "
            "`teacher_cache` to another folder, which then keeps its date, or `chat_template_path` to a template "
            "without one."
        )
    unrecorded = {"config"} - {*found}  # caches of before it was recorded
    for name in sorted({*found, *wanted} - {"date"} - unrecorded):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"The teacher cache '{title or folder}' belongs to something else: its {name} is {found.get(name)!r}, "
                f"that of this run is {wanted.get(name)!r}. Set `teacher_cache` to another folder, or delete this one."
            )


def _provenance(folder: Path) -> dict[str, Any] | None:
    """Return what a cache, complete or begun, says that it belongs to; None where there is none yet."""
    if (folder / TEACHER_INDEX).is_file():
        return dict(read_teacher_index(folder)["provenance"])
    for part in sorted(folder.glob("part-*.safetensors"))[:1]:
        with undamaged(part, _REMEDY), safe_open(part, framework="pt") as file:
            return dict(json.loads(file.metadata()["provenance"]))
    return None
