"""`merge`: merges models or adapters into one folder.

Where the tuned side is an adapter of the aligned model, or both are adapters on one base, most merges write an
adapter. Everything else is written as a full model, tensor by tensor: memory holds no more than a shard of each side.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..hub.merge_card import write_record
from ..hub.push import push_folder
from ..models.fit import ModelError
from ..models.folders import MODEL, same_model
from ..storage.folders import check_output, complete_folder
from .base import Merge
from .companions import copy_tokenizer
from .evidence import MergeEvidence
from .methods import check_sides, merge_method, own_number
from .opening import open_merge, tokenizer_of
from .side import Sides, tuned_names
from .weights import MergeWeights

logger = logging.getLogger(__name__)

#: Dtypes that a merge can be written in, by name.
OUTPUT_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def merge(
    aligned: str | Path,
    tuned: str | Path | Sequence[str | Path],
    method: str,
    weight: float | str | Path | Mapping[str, float] | None,
    output: str | Path,
    *,
    base: str | Path | None = None,
    safe: str | Path | None = None,
    threshold: float | str | Path | Mapping[str, float] | None = None,
    dtype: str | None = None,
    max_shard_size: str = "5GB",
    overwrite: bool = False,
    push_to_hub: bool = False,
    hub_model_id: str | None = None,
    ignore_gate: bool = False,
    evidence: MergeEvidence | None = None,
) -> Path:
    """Merge a tuned model back with the aligned one, and write a folder that `from_pretrained` loads; returns it.

    A merge measures nothing: before it is pushed, it has to be measured, with `safe-sft evaluate` and a gate.

    Args:
        aligned: folder or Hub name of the aligned model or adapter; a 4-bit (bitsandbytes) one is dequantised.
        tuned: folder or Hub name of the tuned model or adapter; several for `magmax`, of which the first says layout
            and dtype. Where `aligned` is a model, an adapter is one of it.
        method: `linear`, `slerp`, `task_arithmetic`, `magmax`, `safe_lora` or `safemerge`.
        weight: 0 is aligned, 1 is tuned; a number, a mapping of tensor-name patterns to numbers, or a YAML file. None
            takes the default of `magmax` (1) and `safemerge` (0.8); `safe_lora` has none.
        output: folder to write; it appears when it is complete.
        base: folder or Hub name of the model before alignment, for `magmax`, `safe_lora` and `safemerge`.
        safe: folder or Hub name of a model or adapter that was tuned for safety alone, for `safemerge`.
        threshold: cosine for `safe_lora` (also patterns, as `weight`) and `safemerge`; None takes 0.35.
        dtype: dtype of floats: `float32`, `float16` or `bfloat16`; by default that of the tuned model (for an adapter,
            of its base).
        max_shard_size: largest size of a file of a full model, such as `5GB`.
        overwrite: whether a folder that is not empty may be replaced.
        push_to_hub: whether to upload the folder at once, unmeasured; needs `ignore_gate`.
        hub_model_id: Hub repository; by default the name of `output`.
        ignore_gate: whether to push what no gate has let through; its evidence says so.
        evidence: evidence that a sweep has begun, of the same models; None begins its own.

    Raises:
        EvidenceError: when one of the models is not what its evidence says.
        FileExistsError: when `output` is not empty.
        FileNotFoundError: when a folder or its safetensors are missing.
        HubError: when the push failed, with how to push again.
        ValueError: when the models cannot be merged, or an argument is missing, not read, or out of range.
    """
    require_gate_ignored(push_to_hub, ignore_gate, output)
    check_sides(method, {"base": base, "safe": safe}, len(tuned_names(tuned)))
    number, second = own_number(method, weight, threshold)
    sides, output = Sides.of(aligned, tuned, base, safe), Path(output)
    job = _Job(sides, method, MergeWeights.read(number, method), second, dtype, max_shard_size)
    job.write(output, overwrite, lambda: evidence or MergeEvidence(sides))
    if push_to_hub:
        push_folder(output, hub_model_id or output.absolute().name, ignore_gate=True)
    return output


def require_gate_ignored(push_to_hub: bool, ignore_gate: bool, output: str | Path) -> None:
    """Refuse to push a merge at once, which no gate can have let through, unless that is meant.

    Args:
        push_to_hub: whether the merge is to be pushed.
        ignore_gate: whether that is meant.
        output: folder of the merge.

    Raises:
        ValueError: when it is not.
    """
    if push_to_hub and not ignore_gate:
        raise ValueError(
            "`--push_to_hub` pushes a merge that no gate has let through. Leave it out, measure the merge with "
            f"`safe-sft evaluate --model {output} --max_asr 0.05 --output EVALUATION`, and push it with "
            f"`safe-sft push {output} --repo REPO --evaluation EVALUATION`; or add `--ignore_gate` "
            "(`ignore_gate=True`)."
        )


def write_merge(
    aligned: str, tuned: str, method: str, weight: float, output: Path, max_shard_size: str = "5GB"
) -> None:
    """Merge two models for a caller that writes the evidence of it, or that only looks at the result.

    Args:
        aligned: folder or Hub name of the aligned model or adapter.
        tuned: the same of the tuned one.
        method: a method that needs no other model.
        weight: 0 is aligned, 1 is tuned.
        output: folder to write; it appears when it is complete.
        max_shard_size: largest size of a file of a full model.

    Raises:
        ValueError: when the models cannot be merged.
    """
    sides = Sides.of(aligned, tuned)
    _Job(sides, method, MergeWeights.read(weight, method), None, None, max_shard_size).write(
        output, False, lambda: None
    )


@dataclass(frozen=True)
class _Job:
    """What is merged, and how.

    Attributes:
        sides: the models and adapters.
        method: one of `MERGE_METHODS`.
        numbers: weight of each tensor, or threshold.
        threshold: threshold of a method that has one beside its weight.
        dtype: name of the dtype of floats; None takes that of the tuned side.
        max_shard_size: largest size of a file of a full model, such as `5GB`.
    """

    sides: Sides
    method: str
    numbers: MergeWeights
    threshold: float | None
    dtype: str | None
    max_shard_size: str

    def write(self, output: Path, overwrite: bool, evidence: Callable[[], MergeEvidence | None]) -> None:
        """Write the merge into its folder, whole or not at all; its evidence is made once all sides are here."""
        dtype = output_dtype(self.dtype)
        self._check_sides(output)
        check_output(output, overwrite=overwrite)
        plan = open_merge(self.sides, self.method, self.threshold)
        held = evidence()
        with complete_folder(output, overwrite=overwrite) as folder:
            plan.write(folder, self.numbers, dtype, _shard_size(self.max_shard_size) if plan.stem == MODEL else None)
            tokenizer = tokenizer_of(self.sides.tuned, self.sides.aligned)
            if tokenizer is not None:
                copy_tokenizer(tokenizer, folder)
            self._check_loads(plan, folder)
            record = self._record(plan)
            write_record(folder, record, plan.library)
            if held is not None:
                held.write(folder, record)

    def _check_sides(self, output: Path) -> None:
        """Refuse a base that is the aligned model, and an output that would replace a side, maybe its only copy."""
        base, aligned = self.sides.base, self.sides.aligned
        if base is not None and same_model(base.label, aligned.label):
            raise ValueError(
                f"`base={base.label!r}` is the aligned model itself, so alignment changed nothing in it. Give the "
                "model that it was aligned from."
            )
        for side in self.sides.named().values():
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
                f"'{self.sides.tuned.label}' and '{self.sides.aligned.label}' give no model that loads; one of them "
                f"has another config.json than its weights: {str(error).replace(str(folder), 'the merge')}"
            ) from error

    def _record(self, plan: Merge) -> dict[str, Any]:
        sides, decided = self.sides.named(), plan.report()
        if decided and not decided["changed"]:
            logger.warning(f"`{self.method}` changed none of {decided['updates']} updates. {_why_none(decided)}")
        second = {} if self.threshold is None else {"threshold": self.threshold}
        return {
            **{name: side.label for name, side in sides.items()},
            "method": self.method,
            merge_method(self.method).number: self.numbers.as_json(),
            **second,
            "dtype": self.dtype,
            "max_shard_size": self.max_shard_size,
            "revisions": {name: side.revision for name, side in sides.items() if side.revision is not None},
            **({"decided": decided} if decided else {}),
        }


def _why_none(decided: Mapping[str, Any]) -> str:
    """Say why a merge that changes updates below a threshold changed none: the result is the tuned model."""
    cosines = [one["cosine"] for one in decided["weights"].values() if one["cosine"] is not None]
    if cosines:
        return f"The smallest cosine is {min(cosines):.3f}: for another result, raise the threshold above it."
    return (
        "Either tuning or alignment left each weight as it was: check that `base` is the model before alignment, and "
        "`aligned` the one that was tuned."
    )


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
