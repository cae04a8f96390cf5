"""Importance that can be kept: its tensors, what it was made of, and its file."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..storage.damage import undamaged
from ..storage.hub import HubError, RemoteName
from ..storage.names import IMPORTANCE_FILE
from ..storage.writing import write_tensors
from ..version import __version__

NORMALIZATIONS = ("mean", "none")

# One entry of the safetensors header holds everything that is not a tensor.
_HEADER = "safe_sft.importance"


@dataclass(frozen=True)
class Provenance:
    """The model, data and settings that importance was made of.

    Attributes:
        estimator: `empirical`, `sampled` or `mas`.
        space: `adapter` or `weight`.
        model: the model, as `model_fingerprint` gives it.
        tokenizer: the tokenizer, as `tokenizer_fingerprint` gives it.
        data: the safety rows, as `rows_fingerprint` gives them.
        sequences: number of safety rows.
        tokens: number of supervised tokens.
        version: version of this package.
    """

    estimator: str
    space: str
    model: dict[str, str | None]
    tokenizer: str
    data: str
    sequences: int
    tokens: int
    version: str = __version__


@dataclass(frozen=True)
class Importance:
    """How much every weight of a space matters.

    Attributes:
        tensors: the importance of each weight, as `AnchoredSpace.weigh` takes it.
        provenance: the model, data and settings that it was made of.
        normalization: `mean` when the mean over the weights is 1, `none` when they are as estimated.
        factor: number that the tensors were divided by.
    """

    tensors: dict[str, Tensor]
    provenance: Provenance
    normalization: str = "none"
    factor: float = 1.0

    def normalized(self, normalization: str) -> "Importance":
        """Return the same importance in another normalisation.

        Raises:
            ValueError: when the importance is 0 everywhere and cannot have mean 1.
        """
        if normalization == self.normalization:
            return self
        if normalization == "none":
            divisor = 1 / self.factor
        else:
            divisor = mean_importance(self.tensors)
            if not 0 < divisor < float("inf"):
                raise ValueError(
                    f"The importance has mean {divisor} over the weights, so it cannot be normalised to 1. Give "
                    "safety rows that the model answers with some uncertainty; in the space `adapter`, a fresh LoRA "
                    "has no importance in A: set `importance_space: weight`."
                )
        tensors = {name: value / divisor for name, value in self.tensors.items()}
        return replace(self, tensors=tensors, normalization=normalization, factor=self.factor * divisor)

    def after(self, previous: "Importance", decay: float) -> "Importance":
        """Online EWC: what mattered before, decayed, and what matters now (Schwarz et al. 2018,
        https://arxiv.org/abs/1805.06370, eq. 9).

        Args:
            previous: importance of an earlier stage, in the same layout.
            decay: factor on `previous`, from 0 (forget it) to 1.

        Returns:
            `decay · previous + self`, for the model and in the normalisation of `self`.

        Raises:
            ValueError: for another estimator, space, tokenizer, architecture or layout.
        """
        ours, theirs = self.provenance, previous.provenance
        for field in ("estimator", "space"):
            _require_same(field, getattr(theirs, field), getattr(ours, field))
        _require_same("tokenizer", theirs.tokenizer, ours.tokenizer)
        _require_same("architecture", theirs.model["architecture"], ours.model["architecture"])
        if {k: v.shape for k, v in self.tensors.items()} != {k: v.shape for k, v in previous.tensors.items()}:
            raise ValueError(
                "The earlier importance is that of another adapter layout, so the two cannot be added. Compute both "
                "with the same target modules."
            )
        old, new = previous.normalized("none").tensors, self.normalized("none").tensors
        total = {name: torch.add(value, old[name].to(value), alpha=decay) for name, value in new.items()}
        return Importance(total, ours).normalized(self.normalization)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write `folder/importance.safetensors`, whole or not at all.

        Numbers are stored in bfloat16, at half the size of float32; its precision is finer than that of any estimate.
        """
        path = Path(folder) / IMPORTANCE_FILE
        header = {**asdict(self.provenance), "normalization": self.normalization, "factor": self.factor}
        tensors = {name: value.to(torch.bfloat16) for name, value in self.tensors.items()}
        write_tensors(path, tensors, {_HEADER: json.dumps(header, sort_keys=True)})
        return path

    @classmethod
    def load(cls, source: str | os.PathLike, argument: str = "importance_path") -> "Importance":
        """Read a folder or a repository of the Hub: `owner/name`, `hf://owner/name` or `hf://owner/name@revision`.

        Args:
            source: the folder or repository.
            argument: name of the argument that gave it, for the error message.

        Raises:
            ValueError: when there is no such file, or it was not written by this package.
        """
        path = _find(os.fspath(source), argument)
        with undamaged(path, "Copy it again, or compute it anew."):
            with safe_open(path, "pt") as file:
                header: dict[str, Any] | None = json.loads((file.metadata() or {}).get(_HEADER, "null"))
                tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
            if header is not None:
                normalization, factor = str(header.pop("normalization")), float(header.pop("factor"))
                return cls(tensors, Provenance(**header), normalization, factor)
        raise ValueError(f"'{path}' was not written by `safe-sft importance`. Compute it with that command.")

    def require(
        self, source: str, *, space: str, estimator: str, model: Mapping[str, str | None], tokenizer: str
    ) -> None:
        """Check that the importance was made for this run.

        Args:
            source: where the importance was loaded from, for the error message.
            space: name of the run's space.
            estimator: the run's estimator.
            model: fingerprint of the run's model, at its anchor.
            tokenizer: fingerprint of the run's tokenizer.

        Raises:
            ValueError: when something differs; the message names it, both values, and the remedy.
        """
        made = self.provenance
        where = f"`importance_path={source!r}`"
        _require_same("space", made.space, space, where)
        _require_same("estimator", made.estimator, estimator, where)
        for part, value in model.items():
            # A quantised model cannot be compared with one that is not.
            if part != "matrices" or None not in (value, made.model[part]):
                _require_same(f"model ({part})", made.model[part], value, where)
        _require_same("tokenizer", made.tokenizer, tokenizer, where)


def mean_importance(tensors: Mapping[str, Tensor]) -> float:
    """Return the mean over all weights; a pair of row and column sums stands for a whole matrix."""
    total, count = 0.0, 0
    for name, tensor in tensors.items():
        if name.endswith(".columns"):
            continue
        total += tensor.sum(dtype=torch.float64).item()
        columns = tensors.get(f"{name.removesuffix('.rows')}.columns") if name.endswith(".rows") else None
        count += tensor.numel() * (1 if columns is None else columns.numel())
    return total / count


def _require_same(what: str, found: str | None, wanted: str | None, where: str = "The earlier importance") -> None:
    if found != wanted:
        raise ValueError(
            f"{where} belongs to another run: its {what} is {_shown(found)}, that of this run is {_shown(wanted)}. "
            "Compute it anew with `safe-sft importance`, or change the run to match."
        )


def _shown(value: str | None) -> str:
    return "none" if value is None else f"'{value}'"


def _find(source: str, argument: str) -> Path:
    if os.path.isdir(source):
        path = Path(source) / IMPORTANCE_FILE
        if not path.is_file():
            raise ValueError(
                f"The folder '{source}' has no {IMPORTANCE_FILE}. Give the `--output` folder of `safe-sft importance`."
            )
        return path
    try:
        path = (RemoteName.parse(source) or RemoteName(source)).download([IMPORTANCE_FILE]) / IMPORTANCE_FILE
    except HubError as error:
        raise ValueError(f"{_no_file(source, argument)} {error}") from error
    if not path.is_file():
        raise ValueError(_no_file(source, argument))
    return path


def _no_file(source: str, argument: str) -> str:
    return (
        f"`{argument}={source!r}` is neither a folder nor a repository of the Hub with a {IMPORTANCE_FILE} that "
        "can be reached. Check the name, or compute the file with `safe-sft importance`."
    )
