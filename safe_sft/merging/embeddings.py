"""Which tensors of a checkpoint are its input embedding and its head, and whether two vocabularies agree."""

from pathlib import Path
from typing import NamedTuple

import torch

from .loadable import model_without_weights


class EmbeddingNames(NamedTuple):
    """Names of the input embedding and of the language-model head."""

    embedding: str
    head: str


def embedding_names(folder: Path) -> EmbeddingNames:
    """Read the names off the architecture, which is built without weights.

    Args:
        folder: folder that holds the model's `config.json`.
    """
    from transformers import AutoModelForCausalLM

    from ..models.loading import load_config

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(folder), trust_remote_code=False)
    names = {id(module): name for name, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return EmbeddingNames(f"{names[id(embedding)]}.weight", f"{names[id(head)]}.weight")


def transposed_names(folder: Path) -> frozenset[str]:
    """Return the weights that are stored as `(d_in, d_out)`: those of embeddings, and of `Conv1D` layers (GPT-2).

    Args:
        folder: folder that holds the model's `config.json`.
    """
    from torch.nn import Embedding
    from transformers.pytorch_utils import Conv1D

    modules = model_without_weights(folder).named_modules()
    return frozenset(f"{name}.weight" for name, module in modules if isinstance(module, (Embedding, Conv1D)))


def check_vocabularies(other: Path | None, tuned: Path | None, role: str = "aligned") -> None:
    """Check that every token has the same row in both models.

    Args:
        other: folder of the other model's tokenizer, or None when there is none.
        tuned: folder of the tuned model's tokenizer, or None when there is none.
        role: what the other model is, for the error message.

    Raises:
        ValueError: when a token has another id, or a tokenizer is missing.
    """
    from ..models.loading import load_tokenizer

    if other is None or tuned is None:
        raise ValueError(
            f"The vocabularies differ in size, and the {role if other is None else 'tuned'} model has no "
            "tokenizer to tell which rows belong together. Save its tokenizer beside it."
        )
    left, right = (load_tokenizer(folder).get_vocab() for folder in (other, tuned))
    moved = next((token for token in left.keys() & right.keys() if left[token] != right[token]), None)
    if moved is not None:
        raise ValueError(
            f"The token {moved!r} has id {left[moved]} in the {role} model and {right[moved]} in the tuned one, so "
            "their embeddings are those of different tokens. Merge models with one tokenizer; added tokens go at the "
            "end."
        )
