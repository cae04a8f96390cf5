"""`merge`: two models or adapters in, one folder out."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..hub.merge_card import write_record
from ..models.folders import is_adapter, locate, tokenizer_folder
from ..storage.folders import check_output, complete_folder
from ..storage.hub import upload
from .adapter import AdaptedCheckpoint, Adapter, base_name, warn_of_other_base
from .base import Merge
from .checkpoint import Checkpoint, TensorSource
from .companions import copy_tokenizer
from .concatenation import AdapterConcatenation
from .models import ModelMerge
from .rescaling import AdapterRescaling
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
    """Merge a tuned model back with the aligned one, and write a folder that `from_pretrained` loads.

    Where both sides are LoRA adapters on one base, or the tuned side is an adapter of the aligned model, `linear` and
    `task_arithmetic` write an adapter. Everything else is written as a full model, tensor by tensor: memory holds no
    more than a shard of each side.

    Args:
        aligned: folder or Hub name of a model or adapter; in 4-bit (bitsandbytes) it is dequantised.
        tuned: the same; an adapter alone is one of `aligned`.
        method: `linear`, `slerp` or `task_arithmetic`.
        weight: 0 is aligned, 1 is tuned; a number, or patterns of tensor names with a number each, or the path of a
            YAML file with them.
        output: folder to write; it appears when it is complete.
        dtype: `float32`, `float16` or `bfloat16`; by default that of the tuned model (of the base, for an adapter).
        max_shard_size: of a file of a full model, such as `5GB`.
        overwrite: whether a folder that is not empty may be replaced.
        push_to_hub: whether to upload the folder.
        hub_model_id: Hub repository; by default the name of `output`.

    Returns:
        The folder.

    Raises:
        FileExistsError: when `output` is not empty.
        FileNotFoundError: when a folder or its safetensors are missing.
        HubError: when the push failed, with how to push again.
        ValueError: when the two cannot be merged, or an argument is out of range.
    """
    weights, wanted, output = MergeWeights.read(weight, method), output_dtype(dtype), Path(output)
    check_output(output, overwrite=overwrite)
    plan = open_merge(str(aligned), str(tuned), method)
    with complete_folder(output, overwrite=overwrite) as folder:
        plan.write(folder, weights, wanted, _shard_size(max_shard_size) if plan.stem == "model" else None)
        tokenizer = tokenizer_of(str(tuned), str(aligned))
        if tokenizer is not None:
            copy_tokenizer(tokenizer, folder)
        arguments = {
            "aligned": str(aligned),
            "tuned": str(tuned),
            "method": method,
            "weight": weights.as_json(),
            "dtype": dtype,
            "max_shard_size": max_shard_size,
        }
        write_record(folder, {**arguments, "revisions": _revisions(arguments)}, plan.library)
    if push_to_hub:
        upload(output, hub_model_id or output.absolute().name, message="Upload a model merged by safe_sft")
    return output


def open_merge(aligned: str, tuned: str, method: str) -> Merge:
    """Find out what is to be merged, and how it stays small.

    Args:
        aligned: folder or Hub name.
        tuned: folder or Hub name.
        method: one of `METHODS`.

    Raises:
        FileNotFoundError: when a folder or its safetensors are missing.
        ValueError: when the two cannot be merged.
    """
    sides = [is_adapter(locate(name, weights=False)) for name in (aligned, tuned)]
    if sides[1] and method != "slerp":
        adapter = Adapter(locate(tuned), tuned)
        if sides[0]:
            return AdapterConcatenation(Adapter(locate(aligned), aligned), adapter)
        return AdapterRescaling(aligned, adapter)
    if any(sides):
        logger.warning(
            f"`{method}` of '{tuned}' and '{aligned}' needs full weights: the result is a model, not an adapter."
        )
    return open_model_merge(aligned, tuned, method)


def open_model_merge(aligned: str, tuned: str, method: str) -> ModelMerge:
    """A merge of full weights, also where an adapter would do.

    Args:
        aligned: folder or Hub name.
        tuned: folder or Hub name.
        method: one of `METHODS`.

    Raises:
        FileNotFoundError: when a folder or its safetensors are missing.
        ValueError: when the two cannot be merged.
    """
    tokenizers = (tokenizer_of(aligned), tokenizer_of(tuned, aligned))
    base = None if is_adapter(locate(aligned, weights=False)) else aligned
    return ModelMerge(_source(aligned, None), _source(tuned, base), method, tokenizers)


def _source(name: str, base: str | None) -> TensorSource:
    """The full weights of `name`; those of an adapter are on `base`, or on the base that it names."""
    folder = locate(name)
    if not is_adapter(folder):
        return Checkpoint(folder, name)
    adapter = Adapter(folder, name)
    base = base or adapter.base
    warn_of_other_base(adapter, base)
    return AdaptedCheckpoint(Checkpoint(locate(base), base), adapter)


def tokenizer_of(*names: str) -> Path | None:
    """The folder of the tokenizer of the first model that has one; after an adapter comes its base.

    Args:
        names: folders or Hub names.
    """

    def candidates() -> Iterator[Path]:
        folders = [locate(name, weights=False) for name in names]
        yield from folders
        for name, folder in zip(names, folders, strict=True):
            if is_adapter(folder):
                yield locate(base_name(folder, name), weights=False)

    return tokenizer_folder(candidates())


def output_dtype(name: str | None) -> torch.dtype | None:
    """A dtype that a merge can be written in, by name.

    Raises:
        ValueError: for another name.
    """
    if name is not None and name not in OUTPUT_DTYPES:
        raise ValueError(f"`dtype={name!r}` is unknown. Choose from: {', '.join(OUTPUT_DTYPES)}.")
    return None if name is None else OUTPUT_DTYPES[name]


def _shard_size(text: str) -> int:
    from accelerate.utils import convert_file_size_to_int

    return convert_file_size_to_int(text)


def _revisions(arguments: dict[str, Any]) -> dict[str, str]:
    """The commits that Hub names stood for."""
    folders = {side: locate(arguments[side], weights=False) for side in ("aligned", "tuned")}
    return {side: folder.name for side, folder in folders.items() if folder.parent.name == "snapshots"}
