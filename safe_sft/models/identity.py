"""Everything that a model's greedy answers depend on, as one digest: two models with the same one answer alike."""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .parts import base_model
from .sharding import whole

_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "bitsandbytes")
# What a tensor is read in, so that a large one on a GPU needs no second place there.
_PIECE = 64 * 2**20
# Plain attributes of modules that change no answer, or that a forward pass changes by the way.
_WITHOUT_EFFECT = {
    *("training", "gradient_checkpointing", "name_or_path", "max_seq_len_cached", "compute_type_is_set"),
    *("warnings_issued", "is_loaded_in_4bit", "is_loaded_in_8bit"),
}
_PRIVATE = {"_active_adapter", "_disable_adapters"}  # PEFT's: which adapters are at work
# Names and places in configs.
_PLACES = {"_name_or_path", "base_model_name_or_path", "inference_mode", "revision", "transformers_version"}


def model_identity(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest every byte of the weights, and all settings of modules, configs, code, tokenizer and packages.

    It reads all weights, about a gigabyte a second: ask once for a loaded model. Under FSDP2 and ZeRO-3 every rank
    must ask, and all get the same.

    Args:
        model: the model as it is run, with its adapters.
        tokenizer: the model's tokenizer.

    Raises:
        ValueError: when weights are offloaded, so that they cannot be read.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(model):
        _add_tensor(digest, name, tensor)
    digest.update(_json([*_module_settings(model), *_ways(model), _configs(model), _code(model), _of(tokenizer)]))
    return digest.hexdigest()


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters, buffers that are saved, states of quantisation, and buffers that are not saved."""
    saved = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    yield from saved.items()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name not in saved)


def _add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    if tensor.device.type == "meta":
        raise ValueError(
            f"`{name}` is offloaded, so answers cannot be kept under the weights that they came from. Load the model "
            "onto one device, or keep no answers."
        )
    held = whole(tensor).detach()
    digest.update(f"{name} {held.dtype} {tuple(held.shape)};".encode())
    flat = held.contiguous().reshape(-1).view(torch.uint8)
    for start in range(0, flat.numel(), _PIECE):
        digest.update(flat[start : start + _PIECE].cpu().numpy())


def _module_settings(model: nn.Module) -> Iterator[list[Any]]:
    """Return the plain attributes of every module: epsilons, adapters' scalings, which are active or merged."""
    for name, module in model.named_modules():
        kept = {
            key: value
            for key, value in vars(module).items()
            if key not in _WITHOUT_EFFECT and (key in _PRIVATE or not key.startswith("_")) and _is_plain(value)
        }
        yield [name, type(module).__qualname__, kept]


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype))


def _ways(model: nn.Module) -> list[Any]:
    """Return how the numbers are computed: on which device, in which dtype, by which versions."""
    device = next(model.parameters()).device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    return [device, autocast, {name: _version(name) for name in _PACKAGES}]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _configs(model: nn.Module) -> list[Any]:
    config = getattr(base_model(model), "config", None)
    adapters = getattr(model, "peft_config", None) or {}
    return [
        None if config is None else [config.to_dict(), getattr(config, "_attn_implementation", None)],
        {name: adapter.to_dict() for name, adapter in adapters.items()} if isinstance(adapters, Mapping) else None,
    ]


def _code(model: nn.Module) -> list[str]:
    """Return digests of the code files that came with the model."""
    foreign = {type(m) for m in model.modules() if type(m).__module__.startswith("transformers_modules")}
    files = {inspect.getsourcefile(cls) for cls in foreign}
    return sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if file)


def _of(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Return all of a tokenizer, except how it last cut or padded a batch."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(fast.to_str()) if fast is not None else tokenizer.get_vocab()
    kept = {key: value for key, value in state.items() if key not in ("truncation", "padding")}
    return [type(tokenizer).__qualname__, kept, tokenizer.special_tokens_map, tokenizer.chat_template]


def _json(content: Any) -> bytes:
    return json.dumps(_ordered(content), sort_keys=True, default=_described).encode()


def _ordered(value: Any) -> Any:
    """Return `value` with text as keys, without names and paths, and with sets in order."""
    if isinstance(value, Mapping):
        return {str(key): _ordered(item) for key, item in value.items() if key not in _PLACES}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return [_ordered(item) for item in value] if isinstance(value, (list, tuple)) else value


def _described(value: Any) -> Any:
    """Turn what JSON does not know (a dtype, an enum, an object by its fields) into text, without memory addresses."""
    if isinstance(value, torch.dtype):
        return str(value)
    fields = getattr(value, "__dict__", None)
    return [type(value).__qualname__, _ordered(fields) if fields else None]
