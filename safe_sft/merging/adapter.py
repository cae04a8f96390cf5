"""LoRA adapters as named tensors, and models with an adapter added to their weights."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, final

import torch
from torch import Tensor

from ..models.fit import ModelError
from ..models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, same_model
from .checkpoint import Checkpoint, SafetensorsFiles, TensorSource
from .embeddings import embedding_names
from .side import Side

logger = logging.getLogger(__name__)

_PREFIX = "base_model.model."
#: The ends of LoRA's own keys, and the factor that each is.
_FACTORS = {".lora_A.weight": "a", ".lora_embedding_A": "a", ".lora_B.weight": "b", ".lora_embedding_B": "b"}
_BIAS = ".lora_B.bias"
#: Initialisations that change the base weights: the adapter is right only with the base that they left behind.
_ALTERING = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class FactorKeys:
    """Where an adapter's file has the factors of `scaling · B · A` of one layer.

    Attributes:
        a: key of the factor `A`, `(r, d_in)`.
        b: key of the factor `B`, `(d_out, r)`.
        scaling: factor on the product: `alpha / r`, or `alpha / √r` with rsLoRA.
        transposed: whether the base stores `(d_in, d_out)`: embeddings, and `Conv1D` layers.
    """

    a: str
    b: str
    scaling: float
    transposed: bool


@final
class Adapter:
    """A plain LoRA adapter in a folder.

    Args:
        side: the adapter, with `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        FileNotFoundError: when the adapter has no safetensors.
        ValueError: when the adapter's effective weight is not `W + s·B·A`.
    """

    def __init__(self, side: Side):
        self.side, self.label, self.config = side, side.label, side.adapter_config
        folder = side.folder
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise FileNotFoundError(
                f"The adapter '{side.label}' has no {ADAPTER_WEIGHTS} (looked in {folder}). Load it with PEFT and "
                "save it with `save_pretrained`, which writes safetensors."
            )
        self._files = SafetensorsFiles([folder / ADAPTER_WEIGHTS])
        self._refuse_variants()
        #: Pairs by the name of the weight that they change, full tensors by their own name in the model.
        self.pairs: dict[str, FactorKeys] = {}
        self.full: dict[str, str] = {}
        factors: dict[str, dict[str, str]] = {}
        for key in self._files.names:
            end = next((end for end in _FACTORS if key.endswith(end)), None)
            if end is not None:
                factors.setdefault(key.removesuffix(end), {})[_FACTORS[end]] = key
            elif not key.endswith(_BIAS):
                self.full[tensor_name(key)] = key
        for layer, keys in factors.items():
            self.pairs[tensor_name(f"{layer}.weight")] = self._pair(layer, keys)

    @property
    def keys(self) -> list[str]:
        """The keys of the adapter's file."""
        return self._files.names

    def read(self, key: str) -> Tensor:
        """Read a tensor of the adapter's file."""
        return self._files.read(key)

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor of the adapter's file."""
        return self._files.shape(key)

    def dtype(self, key: str) -> torch.dtype:
        """Return the dtype of a tensor of the adapter's file."""
        return self._files.dtype(key)

    def delta(self, name: str) -> Tensor:
        """Compute what the adapter adds to a weight of its base, in float32."""
        pair = self.pairs[name]
        product = (self.read(pair.b).float() @ self.read(pair.a).float()) * pair.scaling
        return product.T if pair.transposed else product

    def _pair(self, layer: str, keys: Mapping[str, str]) -> FactorKeys:
        from peft.utils.other import get_pattern_key

        path, config = layer.removeprefix(_PREFIX), self.config
        alphas, ranks = config.get("alpha_pattern") or {}, config.get("rank_pattern") or {}
        alpha: Any = alphas.get(get_pattern_key(list(alphas), path), config.get("lora_alpha"))
        rank: Any = ranks.get(get_pattern_key(list(ranks), path), config.get("r"))
        if not isinstance(alpha, (int, float)) or not isinstance(rank, int) or rank < 1:
            raise ModelError(
                f"The {ADAPTER_CONFIG} of '{self.label}' has `r={rank!r}` and `lora_alpha={alpha!r}` for '{layer}', "
                "which are no numbers of a LoRA. Fetch or save it anew."
            )
        scaling = alpha / (sqrt(rank) if config.get("use_rslora") else rank)
        if keys.keys() != {"a", "b"}:
            raise ModelError(
                f"The adapter '{self.label}' has only one of the two factors of '{layer}'. Fetch or save it anew."
            )
        embedding = keys["a"].endswith("embedding_A")
        return FactorKeys(keys["a"], keys["b"], scaling, embedding or bool(config.get("fan_in_fan_out")))

    def _refuse_variants(self) -> None:
        config = self.config
        kind = None
        if config.get("peft_type") != "LORA":
            kind = f"of type {config.get('peft_type')}"
        elif not (config.get("r") and config.get("lora_alpha")):
            kind = "one whose adapter_config.json says no `r` or no `lora_alpha`"
        elif config.get("use_dora") or any("lora_magnitude_vector" in key for key in self.keys):
            kind = "a DoRA"
        elif str(config.get("init_lora_weights")).lower().startswith(_ALTERING):
            kind = f"initialised with {config['init_lora_weights']!r}, which alters the base weights"
        elif any("trainable_tokens" in key for key in self.keys):
            kind = "one with trained tokens (`trainable_token_indices`)"
        elif config.get("layer_replication"):
            kind = "one that repeats layers (`layer_replication`)"
        if kind is not None:
            raise ValueError(
                f"The adapter '{self.label}' is {kind}, and not a plain LoRA. Merge it into its base with PEFT's "
                "`merge_and_unload()`, save that model, and pass it as a full one."
            )


def tensor_name(key: str) -> str:
    """Turn a key of an adapter's file into the full model's name for it (for a factor, the weight that it changes)."""
    name = key.removeprefix(_PREFIX)
    for end in (*_FACTORS, _BIAS):
        name = f"{name.removesuffix(end)}.weight" if name.endswith(end) else name
    return name.replace(".base_layer.", ".")


def is_b(key: str) -> bool:
    """Return whether a key names a factor `B` or its bias, to which the adapter's output is proportional."""
    return key.endswith(_BIAS) or _FACTORS.get(next((end for end in _FACTORS if key.endswith(end)), "")) == "b"


def warn_of_other_base(adapter: Adapter, base: str) -> None:
    """Log a warning when an adapter names another base than the one it is merged with."""
    own = adapter.config.get("base_model_name_or_path") or base
    if not same_model(own, base):
        logger.warning(
            f"The adapter '{adapter.label}' was trained on '{own}', and is merged as one of '{base}': right if one is "
            "a copy of the other, or the same model in 4-bit."
        )


@final
class AdaptedCheckpoint(TensorSource):
    """A full model with an adapter added to its weights, tensor by tensor.

    Args:
        base: the full model.
        adapter: an adapter of that model.

    Raises:
        ValueError: when the adapter does not fit the base.
    """

    def __init__(self, base: Checkpoint, adapter: Adapter):
        self.folder, self.label = base.folder, adapter.label
        self._base, self._adapter = base, adapter
        known = set(base.names)
        for name in (*adapter.pairs, *adapter.full):
            if name not in known:
                self._refuse(name, f"which is no tensor of '{base.label}'")
            elif base.shape(name) != self._adapted_shape(name):
                self._refuse(name, f"as {self._adapted_shape(name)}, and in '{base.label}' it is {base.shape(name)}")
        if any(key.endswith(_BIAS) for key in adapter.keys):
            self._refuse(next(k for k in adapter.keys if k.endswith(_BIAS)), "a bias of its own (`lora_bias`)")
        shared = [*adapter.full, *(name for name, pair in adapter.pairs.items() if pair.transposed)]
        if shared and base.tied:
            tied = [name for name in shared if name in embedding_names(base.folder)]
            if tied:
                self._refuse(tied[0], "which the base shares between its embedding and its head")

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the base's tensors."""
        return self._base.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor of this name."""
        return self._base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """Return the base's dtype for the tensor of this name."""
        return self._base.dtype(name)

    def read(self, name: str) -> Tensor:
        """Read the tensor of this name; one that the adapter changes is in float32."""
        key = self._adapter.full.get(name)
        tensor = self._base.read(name) if key is None else self._adapter.read(key)
        return tensor.float() + self._adapter.delta(name) if name in self._adapter.pairs else tensor

    def _adapted_shape(self, name: str) -> tuple[int, ...]:
        if name in self._adapter.full:
            return self._adapter.shape(self._adapter.full[name])
        pair = self._adapter.pairs[name]
        shape = (self._adapter.shape(pair.b)[0], self._adapter.shape(pair.a)[1])
        is_matrix = len(self._adapter.shape(pair.a)) == 2
        return (shape[::-1] if pair.transposed else shape) if is_matrix else ()

    def _refuse(self, name: str, reason: str) -> None:
        raise ValueError(
            f"The adapter '{self.label}' changes '{name}', {reason}, so its full weights cannot be computed here. "
            "Check that it was trained on this model. If it was, merge it with PEFT's `merge_and_unload()`, save that "
            "model, and pass it as a full one."
        )
