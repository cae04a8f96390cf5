"""Short digests that tell one model, tokenizer or data set from another."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .adapters import active_lora_layers, of_adapter
from .parts import base_model, is_peft_model, is_quantised

# Settings that change no hidden state, that are recorded apart, or that training sets.
_NOT_OF_STATES = {
    *("architectures", "transformers_version", "dtype", "quantization_config", "use_cache", "return_dict"),
    *("output_attentions", "output_hidden_states", "output_router_logits", "router_aux_loss_coef"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "id2label", "label2id", "problem_type"),
    "chunk_size_feed_forward",
}
# So many numbers of each tensor enter a digest, evenly spread.
_SAMPLES = 64


def tensors_digest(tensors: Iterable[tuple[str, Tensor]], *, every_value: bool = False) -> str:
    """Digest names, shapes and a sample of the values, rounded to bfloat16, so that the dtype does not matter.

    Args:
        tensors: pairs of name and tensor.
        every_value: whether the sum of all values is included (the sum of their bits, which is exact in any order).
    """
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample(tensor).to(torch.bfloat16).float().numpy().tobytes())
        if every_value:
            flat = tensor.detach().reshape(-1)
            digest.update(str(flat.to(torch.bfloat16).view(torch.int16).sum(dtype=torch.int64).item()).encode())
    return digest.hexdigest()[:16]


def sample(tensor: Tensor) -> Tensor:
    """Return at most 64 values of a tensor, evenly spread, on the CPU."""
    return tensor.detach().reshape(-1)[:: _stride(tensor)][:_SAMPLES].cpu()


def _stride(tensor: Tensor) -> int:
    """Return the step between sampled numbers: without a factor in common with the width, or few columns are seen."""
    stride, width = max(1, tensor.numel() // _SAMPLES), tensor.size(-1) if tensor.dim() else 1
    while math.gcd(stride, width) > 1:
        stride -= 1
    return stride


def model_fingerprint(model: nn.Module, trained: Mapping[str, Tensor]) -> dict[str, str | None]:
    """Digest the parts of a model that importance depends on.

    Args:
        model: the model, with or without a PEFT adapter.
        trained: the adapter's tensors that change the model, such as the anchors of a space; empty for a fresh
            adapter.

    Returns:
        `architecture`, in words; digests of the base model's `vectors` (norms, biases, embeddings, which quantisation
        leaves alone) and `matrices` (None when quantised); and of the `adapter` (None when fresh).
    """
    inner = base_model(model)
    config = inner.config.get_text_config()
    base = sorted((_base_name(name), p) for name, p in inner.named_parameters() if not of_adapter(name))
    embeddings = {id(e.weight) for e in (inner.get_input_embeddings(), inner.get_output_embeddings()) if e is not None}
    vectors = [(name, p) for name, p in base if p.dim() == 1 or id(p) in embeddings]
    matrices = [(name, p) for name, p in base if p.dim() > 1 and id(p) not in embeddings]
    quantised = any(is_quantised(p) for _, p in matrices)
    return {
        "architecture": f"{type(inner).__name__}, {config.num_hidden_layers} layers, hidden size "
        f"{config.hidden_size}, vocabulary {config.vocab_size}",
        "vectors": tensors_digest(vectors, every_value=True),
        "matrices": None if quantised else tensors_digest(matrices),
        "adapter": tensors_digest([*sorted(trained.items()), *_scalings(model)]) if trained else None,
    }


def config_fingerprint(model: nn.Module) -> str:
    """Digest the settings of a model's configuration that its hidden states depend on, such as `rope_theta`."""
    settings = base_model(model).config.get_text_config().to_dict()
    kept = {
        name: value
        for name, value in settings.items()
        if not name.startswith("_") and name not in _NOT_OF_STATES and not name.endswith(("dropout", "pdrop"))
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest the vocabulary and the chat template."""
    content = [sorted(tokenizer.get_vocab().items()), tokenizer.chat_template]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _scalings(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the factor by which each LoRA layer multiplies its product."""
    layers = active_lora_layers(model) if is_peft_model(model) else []
    return [
        (f"{name}.{adapter}.scaling", torch.tensor(float(layer.scaling[adapter])))
        for name, layer in layers
        for adapter in sorted({*layer.active_adapters} & {*layer.scaling})
    ]


def _base_name(name: str) -> str:
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")
