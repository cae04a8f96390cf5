"""Chooses the space in which a model's weights are anchored, and makes it."""

from typing import Any

from torch import nn

from ..models.adapters import active_lora_layers, adapter_is_fresh
from ..models.parts import is_peft_model
from .parameter_space import ParameterSpace
from .space import AnchoredSpace, Slot, space_name
from .weight_space import EffectiveWeightSpace, FactorPair


def anchor_space(model: nn.Module, requested: str | None) -> AnchoredSpace:
    """Anchor the weights of `model` at their present values.

    Args:
        model: the model, before training.
        requested: `adapter`, `weight`, or None for the default of `space_name`.

    Raises:
        ValueError: when nothing is trainable, or the model has LoRA layers whose effective weight is not `W + s·B·A`
            of a matrix.
    """
    slots = _trainable_slots(model)
    if not slots:
        raise ValueError("The model has no trainable parameter, so there is nothing to anchor. Unfreeze some.")
    if space_name(requested, adapted=is_peft_model(model), fresh=adapter_is_fresh(model)) == "adapter":
        return ParameterSpace(slots, model)
    pairs: list[FactorPair] = []
    for name, layer in active_lora_layers(model):
        for adapter in sorted(set(layer.active_adapters) & {*layer.lora_B, *layer.lora_embedding_B}):
            _require_plain_lora(name, layer, adapter)
            pairs.append(FactorPair(f"{name}.{adapter}", layer, adapter))
    if not pairs:
        raise ValueError(
            "`importance_space='weight'` needs LoRA layers, and the adapter has none. Set `importance_space: adapter`."
        )
    factors = {id(slot.parameter) for pair in pairs for slot in (pair.a, pair.b)}
    rest = {name: slot for name, slot in slots.items() if id(slot.parameter) not in factors}
    return EffectiveWeightSpace(pairs, rest, model)


def _trainable_slots(model: nn.Module) -> dict[str, Slot]:
    owners = dict(model.named_modules())
    slots = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            module, _, leaf = name.rpartition(".")
            slots[name] = Slot(owners[module], leaf)
    return slots


def _require_plain_lora(name: str, layer: Any, adapter: str) -> None:
    reason = None
    if adapter in layer.lora_embedding_B:
        reason = "LoRA on an embedding"
    elif isinstance(layer, _parameter_wrapper()):
        reason = "LoRA on a parameter (`target_parameters`)"
    elif layer.lora_B[adapter].weight.dim() != 2:
        reason = "LoRA on a convolution"
    elif layer.lora_B[adapter].bias is not None:
        reason = "LoRA with a bias of its own (`lora_bias`)"
    elif adapter in layer.lora_variant:
        reason = f"the LoRA variant {type(layer.lora_variant[adapter]).__name__}"
    if reason:
        raise ValueError(
            f"`importance_space='weight'` does not handle {reason} (layer '{name}'): its effective weight is not "
            "W + s·B·A. Set `importance_space: adapter`, or leave the layer out of `target_modules`."
        )


def _parameter_wrapper() -> type:
    from peft.tuners.lora.layer import ParamWrapper

    return ParamWrapper
