"""Which tokens, and how many of them in a row, a model has weights for."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow
import pyarrow.compute
from torch import nn
from transformers import PreTrainedConfig

from .parts import base_model, vocabulary_size

#: What `transformers` calls a table of positions; rotary positions have none, and go on.
_TABLES = ("wpe", "embed_positions", "position_embeddings", "positions_embed")


class TokenLimits(NamedTuple):
    """Rows beyond these end in an IndexError, or on a GPU in a failure that names nothing.

    Attributes:
        model: class of the model.
        vocabulary: number of tokens that it knows.
        positions: most tokens of a row, where it has a table of positions; None where it has none.
    """

    model: str
    vocabulary: int
    positions: int | None

    @classmethod
    def of(cls, model: nn.Module) -> "TokenLimits":
        """Read the limits off a model, also one that PEFT wraps."""
        inner = base_model(model)
        return cls(type(inner).__name__, vocabulary_size(model), table_positions(inner))

    def allow(self, rows: pyarrow.ChunkedArray, lengths: pyarrow.ChunkedArray | None = None) -> bool:
        """Return whether rows are within the limits.

        Args:
            rows: lists of token ids.
            lengths: lists of the lengths of the examples in each row, where rows are packed.
        """
        # One chunk at a time: together, a large data set fills the memory.
        known = all(_most(chunk.flatten()) < self.vocabulary for chunk in rows.chunks)
        if self.positions is None or not known:
            return known
        found = map(pyarrow.compute.list_value_length, rows.chunks) if lengths is None else map(_flat, lengths.chunks)
        return all(_most(chunk) <= self.positions for chunk in found)

    def require(self, ids: Sequence[int], what: str, length: int | None = None) -> None:
        """Check one row.

        Args:
            ids: its token ids.
            what: what the row is, at the beginning of the message.
            length: length of the longest example in a packed row; None where it is one example.

        Raises:
            ValueError: when a token is unknown to the model, or there are more than it has positions.
        """
        if len(ids) and max(ids) >= self.vocabulary:
            raise ValueError(
                f"{what} has the token {max(ids)}, and the model has {self.vocabulary} tokens. Use the model's own "
                "tokenizer, or give the model rows for new tokens (`model.resize_token_embeddings(len(tokenizer))`)."
            )
        length = len(ids) if length is None else length
        if self.positions is not None and length > self.positions:
            raise ValueError(
                f"{what} has {length} tokens, and {self.model} has {self.positions} positions. Set `max_length` to "
                f"at most {self.positions}, or leave the row out."
            )


def _flat(chunk: pyarrow.Array) -> pyarrow.Array:
    return chunk.flatten()


def _most(numbers: pyarrow.Array) -> int:
    return pyarrow.compute.max(numbers).as_py() or 0


def table_positions(model: nn.Module) -> int | None:
    """Return how many positions a model's table has; None where positions are computed.

    Args:
        model: a `transformers` model, not wrapped.
    """
    config = getattr(model, "config", None)
    text = config.get_text_config() if isinstance(config, PreTrainedConfig) else None
    made = getattr(text, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in _TABLES and isinstance(module, nn.Embedding):
            held = module.num_embeddings - getattr(module, "offset", 0)
            if held == made:  # a tower that sees or hears has a table of its own
                return held if module.padding_idx is None else held - module.padding_idx - 1
    return None
