"""Short digests that tell one model, tokenizer or data set from another."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..data import TokenizedRow
from ..modeling import base_model, is_quantised

# So many numbers of each tensor enter a digest, evenly spread.
_SAMPLES = 64


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Digest of names, shapes and a sample of the values, rounded to bfloat16: the same for a model in any dtype."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES].to(torch.bfloat16).float().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def model_fingerprint(model: nn.Module, trained: Mapping[str, Tensor]) -> dict[str, str | None]:
    """What importance depends on.

    Args:
        model: with or without a PEFT adapter.
        trained: what of an adapter changes the model, such as the anchors of a space; empty for a fresh one.

    Returns:
        `architecture`, in words; digests of the base model's `vectors` (norms, biases, embeddings, which quantisation
        leaves alone) and `matrices` (None when quantised); and of the `adapter` (None when fresh).
    """
    inner = base_model(model)
    config = inner.config.get_text_config()
    base = sorted((_base_name(name), p) for name, p in inner.named_parameters() if not _of_adapter(name))
    embeddings = {id(e.weight) for e in (inner.get_input_embeddings(), inner.get_output_embeddings()) if e is not None}
    vectors = [(name, p) for name, p in base if p.dim() == 1 or id(p) in embeddings]
    matrices = [(name, p) for name, p in base if p.dim() > 1 and id(p) not in embeddings]
    quantised = any(is_quantised(p) for _, p in matrices)
    return {
        "architecture": f"{type(inner).__name__}, {config.num_hidden_layers} layers, hidden size "
        f"{config.hidden_size}, vocabulary {config.vocab_size}",
        "vectors": tensors_digest(vectors),
        "matrices": None if quantised else tensors_digest(matrices),
        "adapter": tensors_digest(sorted(trained.items())) if trained else None,
    }


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of the vocabulary."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


def rows_fingerprint(rows: Sequence[TokenizedRow]) -> str:
    """Digest of the token ids and labels, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.input_ids, row.labels]).encode())
    return digest.hexdigest()[:16]


def _of_adapter(name: str) -> bool:
    return "lora_" in name or "modules_to_save" in name


def _base_name(name: str) -> str:
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")
