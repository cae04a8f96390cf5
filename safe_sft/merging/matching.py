"""Finds, for each tensor of the tuned model, its counterpart in another model, also where they differ in layout."""

import logging
from functools import cached_property
from pathlib import Path
from typing import final

from torch import Tensor

from .checkpoint import TensorSource
from .embeddings import EmbeddingNames, check_vocabularies, embedding_names

logger = logging.getLogger(__name__)


@final
class Matched:
    """A model's tensors under the names of the tuned model, never by their order.

    A head that the model shares with its embedding is read there. The vocabulary may differ in size. Tensors that the
    tuned model lacks are left out, with a warning.

    Args:
        other: the model whose tensors are read.
        tuned: the model whose names they get.
        role: what the model is in the merge: `aligned`, `base`, …
        tokenizers: folders of the tokenizers of both, compared where the vocabularies differ in size.

    Raises:
        ValueError: when the two models differ in architecture.
    """

    def __init__(
        self, other: TensorSource, tuned: TensorSource, role: str, tokenizers: tuple[Path | None, Path | None]
    ):
        self._other, self._tuned = other, tuned
        stored = set(other.names)
        self._counterpart = {name: name if name in stored else self._tied_counterpart(name) for name in tuned.names}
        resized = [n for n in tuned.names if other.shape(self._counterpart[n]) != tuned.shape(n)]
        for name in resized:
            self._check_resized(name)
        if resized:
            check_vocabularies(*tokenizers, role)
            logger.warning(
                f"The vocabulary has {other.shape(self._counterpart[resized[0]])[0]} rows in '{other.label}' and "
                f"{tuned.shape(resized[0])[0]} in '{tuned.label}'. Rows of both are merged, other rows of the tuned "
                "model are kept."
            )
        self._leave_out(sorted(stored - set(self._counterpart.values())))

    def read(self, name: str) -> Tensor:
        """Read the counterpart of a tensor of the tuned model."""
        return self._other.read(self._counterpart[name])

    @cached_property
    def _other_names(self) -> EmbeddingNames:
        return embedding_names(self._other.folder)

    @cached_property
    def _tuned_names(self) -> EmbeddingNames:
        return embedding_names(self._tuned.folder)

    def _tied_counterpart(self, name: str) -> str:
        """Return where the model keeps a tied tensor that it does not store under its own name."""
        if self._other.tied and name == self._other_names.head:
            return self._other_names.embedding
        raise ValueError(
            f"'{self._tuned.label}' has the tensor '{name}', and '{self._other.label}' has not: they are not of one "
            "architecture, or were saved by different classes. Load both with `AutoModelForCausalLM`, and save them "
            "with `save_pretrained`."
        )

    def _leave_out(self, names: list[str]) -> None:
        """Log which tensors only the other model has; raise an error if its head is one of them."""
        if names and self._other.tied:
            # Some models with tied weights store the head a second time.
            names = [name for name in names if name != self._other_names.head]
        elif names and self._other_names.head in names:
            raise ValueError(
                f"'{self._tuned.label}' shares its head with its embedding (`tie_word_embeddings: true`), and "
                f"'{self._other.label}' does not, so the merged model cannot share them either. Load the tuned "
                "model, set `model.config.tie_word_embeddings = False`, give the head a copy of the embedding, and "
                "save it."
            )
        if names:
            logger.warning(
                f"{len(names)} tensors of '{self._other.label}' are not in '{self._tuned.label}' and are left out, "
                f"such as '{names[0]}'."
            )

    def _check_resized(self, name: str) -> None:
        other, tuned = self._other.shape(self._counterpart[name]), self._tuned.shape(name)
        if other[1:] != tuned[1:] or name not in self._tuned_names:
            raise ValueError(
                f"The tensor '{name}' has shape {other} in '{self._other.label}' and {tuned} in "
                f"'{self._tuned.label}': only the vocabulary may differ in size. Merge models of one architecture."
            )
