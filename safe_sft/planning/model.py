"""The model of a run without its weights: built on the meta device by the same libraries as the real one."""

import copy
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig
from transformers.quantizers import AutoHfQuantizer

from .attention import ATTENTION

_NF4_BLOCK, _NESTED_BLOCK = 64, 256
_NF4_CODE, _NESTED_CODE, _OFFSET = 16 * 4, 256 * 4, 4


@dataclass(frozen=True)
class ModelPlan:
    """The sizes of a model's parts, and the model itself without its weights.

    Attributes:
        parameters: number of parameters of the model, without an adapter.
        trainable: the parameters that the optimizer changes, by name, on the meta device.
        embeddings: the parameters of `trainable` that belong to an embedding.
        quantized_bytes: size of 4-bit or 8-bit weights, with their scales.
        frozen_bytes: size of every other frozen parameter, and of the buffers.
        largest_quantized: number of elements of the largest quantised weight, which a forward unpacks.
        runnable: the model in the form that computes: without quantisation, with an attention that is counted.
    """

    parameters: int
    trainable: dict[str, Tensor]
    embeddings: frozenset[str]
    quantized_bytes: int
    frozen_bytes: int
    largest_quantized: int
    runnable: Any

    @property
    def trainable_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.trainable.values())

    @property
    def trainable_bytes(self) -> int:
        """Size of the trained parameters; their gradients take as much again."""
        return sum(parameter.nbytes for parameter in self.trainable.values())


def plan_model(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    quantization: BitsAndBytesConfig | None,
    adapter: PeftConfig | None,
    attention: str | None = None,
) -> ModelPlan:
    """Build the model on the meta device, quantised and with its adapter, as TRL's trainer does.

    Args:
        config: configuration of the model, which tells its shape.
        dtype: dtype in which its weights are loaded.
        quantization: how the frozen weights are quantised; None for not at all.
        adapter: the adapter that is trained; None for full tuning.
        attention: `attn_implementation`; anything but `eager` keeps no attention matrix.

    Raises:
        ValueError: when the adapter does not match the model, or nothing can be trained.
    """
    if quantization is not None and adapter is None:
        raise ValueError(
            "`load_in_4bit` and `load_in_8bit` freeze the weights. Set `use_peft: true` to train an adapter."
        )
    build = partial(_build, config, dtype, attention="eager" if attention == "eager" else ATTENTION)
    runnable = build(adapter=adapter, bf16_adapter=quantization is not None)
    model = runnable if quantization is None else build(adapter=adapter, quantization=quantization, bf16_adapter=True)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("The adapter has no trainable parameter. Check `lora_target_modules`.")
    packed = dict(quantized_weights(model))
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return ModelPlan(
        parameters=sum(p.numel() for p in build().parameters()),
        trainable=trainable,
        embeddings=frozenset(name for name, p in trainable.items() if id(p) in embeddings),
        quantized_bytes=sum(packed.values()),
        frozen_bytes=_frozen_bytes(model, packed),
        largest_quantized=max((weight.numel() for weight in packed), default=0),
        runnable=runnable,
    )


def quantized_weights(model: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """Yield each quantised weight of a model on the meta device, and the bytes that it takes once quantised."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear4bit):
            weight: Any = module.weight
            yield weight, four_bit_bytes(weight.numel(), weight.compress_statistics)
        elif isinstance(module, Linear8bitLt):
            yield module.weight, module.weight.numel() + 4 * module.out_features


def four_bit_bytes(elements: int, double: bool) -> int:
    """Compute the bytes of a 4-bit weight of bitsandbytes, with its scales and tables.

    Args:
        elements: number of elements of the weight.
        double: whether the scales are quantised too (`use_bnb_nested_quant`).
    """
    blocks = -(-elements // _NF4_BLOCK)
    scales = 4 * blocks
    if double:
        scales = blocks + 4 * -(-blocks // _NESTED_BLOCK) + _NESTED_CODE + _OFFSET
    return -(-elements // 2) + _NF4_CODE + scales


def _frozen_bytes(model: nn.Module, packed: Collection[Tensor]) -> int:
    frozen = [p for p in model.parameters() if not p.requires_grad and p not in packed]
    return sum(p.nbytes for p in frozen) + sum(b.nbytes for b in model.buffers())


def _known_attention(config: PreTrainedConfig, attention: str) -> str | None:
    """Return `attention`, or None for the model's own where its layers do not look one up by name (Falcon, GPT-J)."""
    architecture = AutoModelForCausalLM._model_mapping.get(type(config), None)
    takes_any = getattr(architecture, "_supports_attention_backend", True)
    return attention if takes_any or attention != ATTENTION else None


def _build(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    *,
    attention: str,
    quantization: BitsAndBytesConfig | None = None,
    adapter: PeftConfig | None = None,
    bf16_adapter: bool = False,
) -> Any:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A copy: the model writes its attention and its quantisation into its configuration.
        own = copy.deepcopy(config)
        model: Any = AutoModelForCausalLM.from_config(
            own, dtype=dtype, attn_implementation=_known_attention(config, attention), trust_remote_code=False
        )
        if quantization is not None:
            quantizer = AutoHfQuantizer.from_config(quantization)
            quantizer.preprocess_model(model, device_map=None)
            quantizer.postprocess_model(model)
        if adapter is not None:
            model = get_peft_model(model, adapter)
    if bf16_adapter:  # as TRL does on quantised models
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    return model.train()
