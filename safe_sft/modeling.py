"""What the package needs to know of a `transformers` or PEFT model: its backbone, its head, its adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from .sharding import gathered, whole

_BORROWED = "borrowed"  # name of an adapter that is loaded for a while


def is_peft_model(model: nn.Module) -> bool:
    """Whether `model` is wrapped by PEFT (False where PEFT is not in use at all)."""
    from accelerate.utils import is_peft_model as check

    return check(model)


def is_quantised(weight: Tensor) -> bool:
    """Whether `weight` holds packed bits; those of bitsandbytes may be stored as floating-point numbers."""
    return not weight.is_floating_point() or hasattr(weight, "quant_state")


def base_model(model: nn.Module) -> PreTrainedModel:
    """The `transformers` model inside a PEFT wrapper, or `model` itself."""
    return model.get_base_model() if is_peft_model(model) else model  # type: ignore[operator,return-value]


def backbone(model: nn.Module) -> nn.Module:
    """The module whose output has `.last_hidden_state`: everything but the language-model head."""
    inner = base_model(model)
    found = inner.base_model
    if found is inner:
        raise ValueError(
            f"{type(inner).__name__} has no separate backbone and head, so its hidden states cannot be read. "
            "Load the model with `AutoModelForCausalLM`."
        )
    return found


@dataclass(frozen=True)
class LogitHead:
    """How hidden states become logits: `cap(scale · (W h + b))`.

    Attributes:
        weight: `(vocab, d)`.
        bias: `(vocab,)` or None.
        scale: constant factor on the logits.
        softcap: `c` in `c·tanh(z / c)`, or None.
        trained: whether the optimizer changes `weight` or `bias`.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None
    trained: bool

    @classmethod
    def of(cls, model: nn.Module) -> "LogitHead":
        """Read the head of `model`.

        Raises:
            ValueError: when the head is quantised.
        """
        inner = base_model(model)
        head = inner.get_output_embeddings()
        weight, bias = head.weight, getattr(head, "bias", None)
        if is_quantised(weight):
            raise ValueError(
                f"The language-model head is quantised ({weight.dtype}), so logits cannot be compared. "
                "Leave it out with `llm_int8_skip_modules=['lm_head']` in `BitsAndBytesConfig`."
            )
        config = inner.config.get_text_config()
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        return cls(weight, bias, _logit_scale(config), getattr(config, "final_logit_softcapping", None), trained)

    def frozen_copy(self) -> "LogitHead":
        """The head as it is now, whatever training does to it."""
        bias = None if self.bias is None else self.bias.detach().clone()
        return replace(self, weight=self.weight.detach().clone(), bias=bias, trained=False)

    def to(self, device: torch.device) -> "LogitHead":
        """The head on `device`."""
        return replace(self, weight=self.weight.to(device), bias=None if self.bias is None else self.bias.to(device))

    def gathered(self) -> "LogitHead":
        """The head with whole tensors, where FSDP2 or ZeRO-3 cuts them up."""
        return replace(self, weight=whole(self.weight), bias=None if self.bias is None else whole(self.bias))


def _logit_scale(config: object) -> float:
    """The constant factor that an architecture puts on its logits; the same fields as TRL's fused head reads."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    divisor = getattr(config, "logits_scaling", None)
    if divisor is None:
        return 1.0
    return float(divisor) if getattr(config, "model_type", "") == "hyperclovax" else 1.0 / divisor


def active_lora_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """The LoRA layers of `model` that hold the active adapter, with their names."""
    from peft.tuners.lora import LoraLayer

    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and set(module.active_adapters) & {*module.lora_B, *module.lora_embedding_B}
    ]


def adapter_is_fresh(model: nn.Module) -> bool:
    """Whether switching the adapter off changes nothing: every active LoRA product is still zero.

    False for full tuning, for an adapter that was trained before, for adapters that are not LoRA, and for
    initialisations that alter the base weights (PiSSA, OLoRA, CorDA, LoftQ).
    """
    if not is_peft_model(model):
        return False
    layers = active_lora_layers(model)
    factors = [
        # Of an embedding's factors, PEFT starts A at zero.
        (layer.lora_B[a].weight if a in layer.lora_B else layer.lora_embedding_A[a])
        for _, layer in layers
        for a in layer.active_adapters
        if a in layer.lora_B or a in layer.lora_embedding_B
    ]
    with gathered(*factors):
        return bool(factors) and not any(torch.count_nonzero(factor).item() for factor in factors)


def of_adapter(name: str) -> bool:
    """Whether a parameter of this name is an adapter's, and is gone while that is switched off."""
    return any(mark in name for mark in ("lora_", "modules_to_save", "trainable_tokens"))


def aligned_without_adapter(model: nn.Module) -> bool:
    """Whether the model with its adapter switched off stays the aligned one: nothing else is trained."""
    beside = (p for name, p in model.named_parameters() if p.requires_grad and not of_adapter(name))
    return adapter_is_fresh(model) and next(beside, None) is None


@contextmanager
def adapter_disabled(model: nn.Module) -> Iterator[None]:
    """Run the base model of a PEFT model, and leave `requires_grad` as it was (PEFT would turn it all on)."""
    with _flags_kept(model), model.disable_adapter():  # type: ignore[operator]
        yield


@contextmanager
def adapter_from(model: Any, folder: str) -> Iterator[nn.Module]:
    """Run the base model of a PEFT model with another adapter, which is gone afterwards.

    Args:
        model: a PEFT model; no second one is loaded.
        folder: of the adapter.
    """
    active = model.active_adapter
    with _flags_kept(model):
        model.load_adapter(folder, adapter_name=_BORROWED)
        try:
            model.set_adapter(_BORROWED)
            yield model
        finally:
            model.set_adapter(active)
            model.delete_adapter(_BORROWED)


@contextmanager
def _flags_kept(model: nn.Module) -> Iterator[None]:
    """Inside, PEFT may turn `requires_grad` on and off; afterwards every parameter has its own again."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, trained in flags:
            if parameter.requires_grad != trained:
                parameter.requires_grad_(trained)


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, a model that was left on the CPU is on `device`.

    Before training, `Trainer` leaves there what FSDP or DeepSpeed will move.
    """
    at_home = next(model.parameters()).device.type != "cpu" or device.type == "cpu"
    if not at_home:
        model.to(device)
    try:
        yield
    finally:
        if not at_home:
            model.to("cpu")


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Inside, the layers keep their inputs alone and run again in the backward pass, in eval mode as well.

    The checkpointing of `transformers` is for training mode, in which a layer may have dropout of its own.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    own = [vars(layer).get("forward") for layer in layers]  # set by accelerate where a model is split over devices
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Inference behaviour, except for quantised layers, which run in training mode.

    On CPU, bitsandbytes repacks 4-bit weights at the first forward in eval mode, and training then raises.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = type(module).__module__.startswith("bitsandbytes.")
        yield
    finally:
        for module, training in modes:
            module.training = training
