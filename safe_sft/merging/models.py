"""The merge of two full models, tensor by tensor, also where they differ in layout."""

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..models.folders import MODEL
from .base import Merge
from .checkpoint import TensorSource
from .companions import copy_model_files
from .embeddings import EmbeddingNames, check_vocabularies, embedding_names
from .functions import merged_blocks
from .loadable import check_model
from .writer import Entry

logger = logging.getLogger(__name__)


@final
class ModelMerge(Merge):
    """Two full models, or models with adapters on them.

    The result has the layout of the tuned model. A head that the aligned model shares with its embedding is read
    there;
    rows of the vocabulary that only the tuned model has are kept; tensors that only the aligned model has are left
    out, with a warning.

    Args:
        aligned: the aligned model.
        tuned: the tuned model.
        method: one of `MERGE_METHODS`.
        tokenizers: folders of the tokenizers of both, compared where the vocabularies differ in size.

    Raises:
        ValueError: when the two models differ in architecture.
    """

    stem, library = MODEL, "transformers"

    def __init__(
        self, aligned: TensorSource, tuned: TensorSource, method: str, tokenizers: tuple[Path | None, Path | None]
    ):
        self.aligned, self.tuned, self._method = aligned, tuned, method
        self.names = list(tuned.names)
        stored = set(aligned.names)
        self._counterpart = {name: name if name in stored else self._tied_counterpart(name) for name in self.names}
        resized = [n for n in self.names if aligned.shape(self._counterpart[n]) != tuned.shape(n)]
        for name in resized:
            self._check_resized(name)
        if resized:
            check_vocabularies(*tokenizers)
            logger.warning(
                f"The vocabulary has {aligned.shape(self._counterpart[resized[0]])[0]} rows in '{aligned.label}' and "
                f"{tuned.shape(resized[0])[0]} in '{tuned.label}'. Rows of both are merged, other rows of the tuned "
                "model are kept."
            )
        self._leave_out(sorted(stored - set(self._counterpart.values())))

    def entries(self, dtype: torch.dtype | None) -> dict[Entry, str]:
        """Return the tensors of the tuned model; `dtype` is for floats."""
        entries = {}
        for name in self.names:
            own = self.tuned.dtype(name)
            wanted = dtype if dtype is not None and own.is_floating_point else own
            entries[Entry(name, self.tuned.shape(name), wanted)] = name
        return entries

    def blocks(self, entry: Entry, name: str, weight: float) -> Iterator[Tensor]:
        """Yield a merged tensor, piece by piece."""
        aligned, tuned = self.aligned.read(self._counterpart[name]), self.tuned.read(name)
        rows = min(len(aligned), len(tuned)) if aligned.shape != tuned.shape else None
        heads = (aligned, tuned) if rows is None else (aligned[:rows], tuned[:rows])
        yield from merged_blocks(*heads, self._method, weight, entry.dtype)
        if rows is not None:
            yield tuned[rows:].reshape(-1).to(entry.dtype)

    def write_configuration(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Write the tuned model's configuration, without its quantisation."""
        config = dict(self.tuned.config)
        if config.pop("quantization_config", None) is not None or dtype is not None:
            largest = max(self.entries(dtype), key=lambda entry: entry.bytes)
            config.pop("torch_dtype", None)
            config["dtype"] = str(largest.dtype).removeprefix("torch.")
        copy_model_files(self.tuned.folder, folder, config)

    def check_loads(self, folder: Path) -> None:
        """Check that the model loads with the class that its configuration names."""
        check_model(folder)

    @cached_property
    def _aligned_names(self) -> EmbeddingNames:
        return embedding_names(self.aligned.folder)

    @cached_property
    def _tuned_names(self) -> EmbeddingNames:
        return embedding_names(self.tuned.folder)

    def _tied_counterpart(self, name: str) -> str:
        """Return where the aligned model keeps a tied tensor that it does not store under its own name."""
        if self.aligned.tied and name == self._aligned_names.head:
            return self._aligned_names.embedding
        raise ValueError(
            f"'{self.tuned.label}' has the tensor '{name}', and '{self.aligned.label}' has not: they are not of one "
            "architecture, or were saved by different classes. Load both with `AutoModelForCausalLM`, and save them "
            "with `save_pretrained`."
        )

    def _leave_out(self, names: list[str]) -> None:
        """Log which tensors only the aligned model has; raise an error if its head is one of them."""
        if names and self.aligned.tied:
            # Some models with tied weights store the head a second time.
            names = [name for name in names if name != self._aligned_names.head]
        elif names and self._aligned_names.head in names:
            raise ValueError(
                f"'{self.tuned.label}' shares its head with its embedding (`tie_word_embeddings: true`), and "
                f"'{self.aligned.label}' does not, so the merged model cannot share them either. Load the tuned "
                "model, set `model.config.tie_word_embeddings = False`, give the head a copy of the embedding, and "
                "save it."
            )
        if names:
            logger.warning(
                f"{len(names)} tensors of '{self.aligned.label}' are not in '{self.tuned.label}' and are left out, "
                f"such as '{names[0]}'."
            )

    def _check_resized(self, name: str) -> None:
        aligned, tuned = self.aligned.shape(self._counterpart[name]), self.tuned.shape(name)
        if aligned[1:] != tuned[1:] or name not in self._tuned_names:
            raise ValueError(
                f"The tensor '{name}' has shape {aligned} in '{self.aligned.label}' and {tuned} in "
                f"'{self.tuned.label}': only the vocabulary may differ in size. Merge models of one architecture."
            )
