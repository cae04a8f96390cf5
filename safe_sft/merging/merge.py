"""`merge`: merges two models or adapters into one folder.

Where both sides are LoRA adapters on one base, or the tuned side is an adapter of the aligned model, `linear` and
`task_arithmetic` write an adapter. Everything else is written as a full model, tensor by tensor: memory holds no more
than a shard of each side.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..hub.merge_card import write_record
from ..models.fit import ModelError
from ..models.folders import MODEL, tokenizer_folder
from ..storage.folders import check_output, complete_folder
from ..storage.hub import Destination, upload
from .adapter import AdaptedCheckpoint, Adapter, warn_of_other_base
from .base import Merge
from .checkpoint import Checkpoint, TensorSource
from .companions import copy_tokenizer
from .concatenation import AdapterConcatenation
from .models import ModelMerge
from .rescaling import AdapterRescaling
from .side import Side
from .weights import MergeWeights

logger = logging.getLogger(__name__)

#: Dtypes that a merge can be written in, by name.
OUTPUT_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def merge(
    aligned: str | Path,
    tuned: str | Path,
    method: str,
    weight: float | str | Path | Mapping[str, float],
    output: str | Path,
    *,
    dtype: str | None = None,
    max_shard_size: str = "5GB",
    overwrite: bool = False,
    push_to_hub: bool = False,
    hub_model_id: str | None = None,
) -> Path:
    """Merge a tuned model back with the aligned one, and write a folder that `from_pretrained` loads; returns it.

    Args:
        aligned: folder or Hub name of the aligned model or adapter; a 4-bit (bitsandbytes) one is dequantised.
        tuned: folder or Hub name of the tuned model or adapter. Where only this side is an adapter, it is one of
            `aligned`.
        method: `linear`, `slerp` or `task_arithmetic`.
        weight: 0 is aligned, 1 is tuned; a number, a mapping of tensor-name patterns to numbers, or a YAML file.
        output: folder to write; it appears when it is complete.
        dtype: dtype of floats: `float32`, `float16` or `bfloat16`; by default that of the tuned model (for an adapter,
            of its base).
        max_shard_size: largest size of a file of a full model, such as `5GB`.
        overwrite: whether a folder that is not empty may be replaced.
        push_to_hub: whether to upload the folder.
        hub_model_id: Hub repository; by default the name of `output`.

    Raises:
        FileExistsError: when `output` is not empty.
        FileNotFoundError: when a folder or its safetensors are missing.
        HubError: when the push failed, with how to push again.
        ValueError: when the two cannot be merged, or an argument is out of range.
    """
    sides, output = (Side(str(aligned)), Side(str(tuned))), Path(output)
    _Job(*sides, method, MergeWeights.read(weight, method), dtype, max_shard_size).write(output, overwrite)
    if push_to_hub:
        destination = Destination(hub_model_id or output.absolute().name)
        upload(output, destination, message="Upload a model merged by safe_sft")
    return output


@dataclass(frozen=True)
class _Job:
    """The two sides of a merge, and its settings.

    Attributes:
        aligned: the aligned side.
        tuned: the tuned side.
        method: one of `MERGE_METHODS`.
        weights: the merge weight of each tensor.
        dtype: name of the dtype of floats; None takes that of the tuned side.
        max_shard_size: largest size of a file of a full model, such as `5GB`.
    """

    aligned: Side
    tuned: Side
    method: str
    weights: MergeWeights
    dtype: str | None
    max_shard_size: str

    def write(self, output: Path, overwrite: bool) -> None:
        """Write the merge into its folder, whole or not at all."""
        dtype = output_dtype(self.dtype)
        self._check_sides(output)
        check_output(output, overwrite=overwrite)
        plan = open_merge(self.aligned, self.tuned, self.method)
        with complete_folder(output, overwrite=overwrite) as folder:
            plan.write(folder, self.weights, dtype, _shard_size(self.max_shard_size) if plan.stem == MODEL else None)
            tokenizer = tokenizer_of(self.tuned, self.aligned)
            if tokenizer is not None:
                copy_tokenizer(tokenizer, folder)
            self._check_loads(plan, folder)
            write_record(folder, self._record(), plan.library)

    def _check_sides(self, output: Path) -> None:
        """Refuse to replace a model that is merged, also where an output may be replaced: it may be the only copy."""
        for side in (self.aligned, self.tuned):
            if Path(side.label).is_dir() and Path(side.label).resolve() == output.resolve():
                raise FileExistsError(
                    f"The output '{output}' is the folder of a model that is merged. Choose another folder."
                )

    def _check_loads(self, plan: Merge, folder: Path) -> None:
        """Check that the merge loads; where it does not, its sides are named, and not the folder that goes again."""
        try:
            plan.check_loads(folder)
        except ModelError as error:
            raise ModelError(
                f"'{self.tuned.label}' and '{self.aligned.label}' give no model that loads; one of them has another "
                f"config.json than its weights: {str(error).replace(str(folder), 'the merge')}"
            ) from error

    def _record(self) -> dict[str, Any]:
        sides = {"aligned": self.aligned, "tuned": self.tuned}
        return {
            **{name: side.label for name, side in sides.items()},
            "method": self.method,
            "weight": self.weights.as_json(),
            "dtype": self.dtype,
            "max_shard_size": self.max_shard_size,
            "revisions": {name: side.revision for name, side in sides.items() if side.revision is not None},
        }


def open_merge(aligned: Side, tuned: Side, method: str) -> Merge:
    """Choose the merge that writes least: an adapter where possible, else a full model.

    Args:
        aligned: the aligned side.
        tuned: the tuned side.
        method: one of `MERGE_METHODS`.

    Raises:
        FileNotFoundError: when a folder or its safetensors are missing.
        ValueError: when the two cannot be merged.
    """
    tuned.with_weights()
    if tuned.is_adapter and method != "slerp":
        adapter = Adapter(tuned)
        return (
            AdapterConcatenation(Adapter(aligned), adapter)
            if aligned.is_adapter
            else AdapterRescaling(aligned, adapter)
        )
    aligned.with_weights()
    if aligned.is_adapter or tuned.is_adapter:
        logger.warning(
            f"`{method}` of '{tuned.label}' and '{aligned.label}' needs full weights: the result is a model, not an "
            "adapter."
        )
    return open_model_merge(aligned, tuned, method)


def open_model_merge(aligned: Side, tuned: Side, method: str) -> ModelMerge:
    """Make a merge of full weights, also where an adapter would do.

    Args:
        aligned: the aligned side.
        tuned: the tuned side.
        method: one of `MERGE_METHODS`.

    Raises:
        FileNotFoundError: when a folder or its safetensors are missing.
        ValueError: when the two cannot be merged.
    """
    sources = _source(aligned, None), _source(tuned, None if aligned.is_adapter else aligned)
    return ModelMerge(*sources, method, (tokenizer_of(aligned), tokenizer_of(tuned, aligned)))


def _source(side: Side, base: Side | None) -> TensorSource:
    """Open the full weights of a side; an adapter is added to `base`, or to the base that it names."""
    if not side.is_adapter:
        return Checkpoint(side.with_weights(), side.label)
    adapter, base = Adapter(side), base or side.base
    warn_of_other_base(adapter, base.label)
    return AdaptedCheckpoint(Checkpoint(base.with_weights(), base.label), adapter)


def tokenizer_of(*sides: Side) -> Path | None:
    """Return the folder of the tokenizer of the first side that has one; after an adapter comes its base."""

    def candidates() -> Iterator[Path]:
        yield from (side.folder for side in sides)
        yield from (side.base.folder for side in sides if side.is_adapter)

    return tokenizer_folder(candidates())


def output_dtype(name: str | None) -> torch.dtype | None:
    """Return a dtype that a merge can be written in, by its name.

    Raises:
        ValueError: for another name.
    """
    if name is not None and name not in OUTPUT_DTYPES:
        raise ValueError(f"`dtype={name!r}` is unknown. Choose from: {', '.join(OUTPUT_DTYPES)}.")
    return None if name is None else OUTPUT_DTYPES[name]


def _shard_size(text: str) -> int:
    from accelerate.utils import convert_file_size_to_int

    return convert_file_size_to_int(text)
