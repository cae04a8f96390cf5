"""Checks that a model's weights are finite: the answers of a broken model are no sign of safety."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .sharding import local

_DEAD = (
    "So the model is dead, and its answers are no evidence of anything. Take an earlier checkpoint, or train again "
    "with a lower learning rate or safety weight."
)


def first_bad_tensor(model: nn.Module) -> str | None:
    """Return the name of the first parameter that holds NaN or infinity; None when all are finite.

    It waits for each device once. Of quantised weights, the scales are looked at.

    Args:
        model: the model, on any devices. Tensors that are empty here (on another rank, or offloaded) are skipped.
    """
    packed = _packed(model)
    tensors = [(name, held) for name, p in model.named_parameters() for held in _numbers(p, packed=name in packed)]
    finite: dict[torch.device, list[Tensor]] = {}
    for _, tensor in tensors:
        finite.setdefault(tensor.device, []).append(_is_finite(tensor))
    if all(bool(torch.stack(flags).all()) for flags in finite.values()):
        return None
    return next(name for name, tensor in tensors if not _is_finite(tensor))


class NotFinite(FloatingPointError, ValueError):
    """A weight, a loss or a gradient is NaN or infinite."""


def require_finite(model: nn.Module, what: str | None = None, remedy: str | None = None) -> None:
    """Raise an error for a model whose weights are not finite.

    Args:
        model: the model; under FSDP2 each rank checks its own part.
        what: name of the model in the message, such as `the aligned model`; its class by default.
        remedy: sentence that says what to do; by default what helps a model that is to be measured.

    Raises:
        NotFinite: when a parameter is not finite; the message names the first.
    """
    bad = first_bad_tensor(model)
    if bad is not None:
        raise NotFinite(
            f"The weights of {what or type(model).__name__} are not finite: `{bad}` holds NaN or infinity. "
            + (remedy or _DEAD)
        )


def _packed(model: nn.Module) -> set[str]:
    """Name the parameters that hold packed bits, which may be stored as floating-point numbers."""
    return {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if type(module).__module__.startswith("bitsandbytes.")
    }


def _numbers(parameter: Tensor, *, packed: bool) -> Iterator[Tensor]:
    """Yield the floating-point tensors behind a parameter that have values here."""
    state = getattr(parameter, "quant_state", None)
    nested = getattr(state, "state2", None)
    scales = [getattr(held, "absmax", None) for held in (state, nested)] + [getattr(state, "offset", None)]
    own = [] if packed or state is not None else [local(parameter.detach())]
    held = [*own, *(s for s in scales if isinstance(s, Tensor))]
    return (t for t in held if t.is_floating_point() and t.numel() and t.device.type != "meta")


def _is_finite(tensor: Tensor) -> Tensor:
    """Return whether a tensor is finite, without a copy: the extremes of a tensor with a NaN are NaN."""
    wide = tensor if tensor.element_size() > 1 else tensor.float()
    least, most = torch.aminmax(wide)
    return torch.isfinite(least) & torch.isfinite(most)
