"""The adapter of a PEFT model: which it is, whether it is fresh, and running without it or with another."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .fit import check_adapter
from .opening import readable
from .parts import is_peft_model
from .sharding import gathered

_BORROWED = "borrowed"  # name of an adapter that is loaded for a while


def active_lora_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the LoRA layers of `model` that hold the active adapter, with their names.

    AdaLoRA's, whose product has a third factor, are none.
    """
    from peft.tuners.adalora.layer import AdaLoraLayer
    from peft.tuners.lora import LoraLayer

    layers = (named for named in model.named_modules() if isinstance(named[1], LoraLayer))
    return [
        (name, layer)
        for name, layer in layers
        if set(layer.active_adapters) & {*layer.lora_B, *layer.lora_embedding_B}
        and not isinstance(layer, AdaLoraLayer)
    ]


def base_weight(layer: Any, name: str) -> Tensor:
    """Return the weight `(d_out, d_in)` under a LoRA layer, without its adapter; quantised ones are read.

    Args:
        layer: the LoRA layer.
        name: its name, for the error message.

    Raises:
        ValueError: for a quantisation that PEFT cannot read.
    """
    try:
        weight = _read(layer.get_base_layer())
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"The weights of layer '{name}' are quantised in a way that cannot be read ({error}), so a penalty cannot "
            "be taken relative to them. Set `penalty_normalization: none`, or load the model in bf16 or 4 bit."
        ) from error
    return weight.detach().T if getattr(layer, "fan_in_fan_out", False) else weight.detach()


def _read(module: Any) -> Tensor:
    from peft.utils.integrations import dequantize_module_weight

    if type(module.weight).__name__ != "Int8Params":
        return dequantize_module_weight(module)
    from bitsandbytes.functional import int8_vectorwise_dequant

    # PEFT's way moves the weight, which loses its scales.
    scales = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
    return int8_vectorwise_dequant(module.weight.data, scales)


def adapter_is_fresh(model: nn.Module) -> bool:
    """Return whether switching the adapter off changes nothing: every active LoRA product is still zero.

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
    """Return whether the parameter of this name belongs to an adapter, so that it is unused while that is off."""
    return any(mark in name for mark in ("lora_", "modules_to_save", "trainable_tokens"))


def aligned_without_adapter(model: nn.Module) -> bool:
    """Return whether the model without its adapter stays the aligned one: nothing else is trained."""
    beside = (p for name, p in model.named_parameters() if p.requires_grad and not of_adapter(name))
    return adapter_is_fresh(model) and next(beside, None) is None


@contextmanager
def adapter_disabled(model: nn.Module) -> Iterator[None]:
    """Switch the adapters off inside this context; `requires_grad` stays as it was (PEFT would turn it all on)."""
    with _flags_kept(model), model.disable_adapter():  # type: ignore[operator]
        yield


@contextmanager
def adapter_from(model: Any, folder: str) -> Iterator[nn.Module]:
    """Put another adapter on the base of a PEFT model inside this context; it is removed afterwards.

    Args:
        model: a PEFT model; no second one is loaded.
        folder: folder of the adapter.
    """
    active = model.active_adapter
    with _flags_kept(model):
        try:
            with readable("adapter", folder):
                result = model.load_adapter(folder, adapter_name=_BORROWED)
            check_adapter(folder, result.missing_keys, result.unexpected_keys)
            model.set_adapter(_BORROWED)
            yield model
        finally:
            model.set_adapter(active)
            if _BORROWED in model.peft_config:
                model.delete_adapter(_BORROWED)


@contextmanager
def _flags_kept(model: nn.Module) -> Iterator[None]:
    """Restore every parameter's `requires_grad` after this context, in which PEFT may change it."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, trained in flags:
            if parameter.requires_grad != trained:
                parameter.requires_grad_(trained)


def check_modules_to_save(model: nn.Module, names: Iterable[str] | None) -> None:
    """Check that there are modules of these names: PEFT leaves out what it does not find, and says nothing.

    Args:
        model: the model, with or without an adapter.
        names: names of modules that are trained in full beside a LoRA, or the ends of their names.

    Raises:
        ValueError: for the first name that no module has.
    """
    known = [name for name, _ in model.named_modules()]
    for wanted in names or ():
        if not any(name == wanted or name.endswith(f".{wanted}") for name in known):
            raise ValueError(
                f"`lora_modules_to_save` names '{wanted}', and the model has no such module. Check the name: its own "
                f"are such as '{known[-1]}'."
            )
