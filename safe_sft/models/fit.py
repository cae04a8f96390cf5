"""Checks that weights, adapter and tokenizer fit the model that they were loaded into."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
#: Buffers that old checkpoints hold, and that are computed today.
_BUFFERS = re.compile(r"(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$|position_ids$")


class ModelError(ValueError):
    """Files of a model that are damaged, or do not fit each other."""


def check_base(name: str, info: Mapping[str, Any], held: Iterable[str], *, quantised: bool = False) -> None:
    """Check that a checkpoint filled its model, and that the model holds all of its layers.

    Parts that the model's class has no place for, such as a vision tower, or says that it ignores, may be left over.

    Args:
        name: folder or Hub name.
        info: loading report of transformers: `missing_keys`, `unexpected_keys` and `mismatched_keys`.
        held: names of the model's tensors.
        quantised: whether the checkpoint is quantised, and so may hold numbers that the model keeps elsewhere.

    Raises:
        ModelError: when a tensor is missing, of another shape, or of a layer that the model lacks.
    """
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        key, stored, built = mismatched[0]
        raise ModelError(
            f"The weights of '{name}' do not fit its config.json: {len(mismatched)} tensors have other shapes, first "
            f"'{key}' ({tuple(stored)} in the file, {tuple(built)} by the configuration). {_ANEW}"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"The weights of '{name}' are incomplete: {len(missing)} tensors of the model are missing, first "
            f"'{missing[0]}', and would be random. {_ANEW}"
        )
    extra = [] if quantised else _of_missing_layers(info["unexpected_keys"], held)
    if extra:
        raise ModelError(
            f"The config.json of '{name}' does not fit its weights: {len(extra)} tensors have no place in the model, "
            f"first '{extra[0]}', and would be left out. {_ANEW}"
        )


_ANEW = "Fetch the model anew, or save it with `save_pretrained`, so that weights and config.json are of one model."


def check_adapter(name: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Check that an adapter's file filled the adapter, and that nothing of the file was left over.

    Args:
        name: folder or Hub name.
        missing: keys of the adapter that the file lacks.
        unexpected: keys of the file that the model lacks.

    Raises:
        ModelError: when a key is missing or left over.
    """
    # Of prompt learning and of shared banks, PEFT sets these apart from the file's keys.
    missing = sorted(key for key in missing if not any(m in key for m in ("prompt_encoder", "vblora_vector_bank")))
    for keys, what in ((sorted(unexpected), "are of no layer of this base"), (missing, "are missing from its file")):
        if keys:
            raise ModelError(
                f"The adapter '{name}' does not fit this base: {len(keys)} of its keys {what}, first '{keys[0]}'. "
                "Give the base that it was trained on, loaded by the same class, or fetch or save the adapter anew."
            )


def check_vocabulary(name: str, tokenizer: Any, config: Any) -> None:
    """Check that the model has a row for each token that a text can turn into.

    Tokens that were added, and that no template writes, may be beyond: some models have one for images only.

    Args:
        name: folder or Hub name of the model.
        tokenizer: the model's tokenizer or processor.
        config: the model's configuration.

    Raises:
        ModelError: when a token's id is too large.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(rows, int) or not hasattr(tokenizer, "get_vocab"):
        return
    vocabulary, added = tokenizer.get_vocab(), tokenizer.get_added_vocab()
    written = str(tokenizer.chat_template or "")
    marks = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    used = {t: i for t, i in vocabulary.items() if t not in added or t in marks or t in written}
    token, largest = max(used.items(), key=lambda item: item[1], default=("", -1))
    if largest >= rows:
        raise ModelError(
            f"The tokenizer has the token {token!r} with id {largest}, and '{name}' has {rows} rows of vocabulary. "
            "Use the model's own tokenizer, or resize the model's embedding and save it."
        )


def _of_missing_layers(unexpected: Iterable[str], held: Iterable[str]) -> list[str]:
    """Return the `unexpected` keys in modules of a kind that the model has, such as one more layer."""
    modules = {module for key in held for module in _modules(key)}
    return sorted(key for key in unexpected if not _BUFFERS.search(key) and modules.intersection(_modules(key)))


def _modules(key: str) -> list[str]:
    """Return the modules that hold a key, by their names without numbers; the outermost only where it is its own."""
    parts = _NUMBER.sub("*", key).split(".")
    return [".".join(parts[:i]) for i in range(min(2, len(parts) - 1), len(parts))]
