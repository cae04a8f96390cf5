"""Sizes of optimizer states, by the setting `optim` of `TrainingArguments`."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

_BLOCK = 256  # bitsandbytes' 8-bit states: one float32 scale a block
_SMALLEST_8BIT = 4096  # parameters below this many elements keep 32-bit states
_TABLE = 256 * 4  # code table of an 8-bit state, one for all parameters

#: States of the shape of the parameter, in its dtype, and bytes of a step counter.
_TORCH = {
    "adamw_torch": (2, 4),
    "adamw_torch_fused": (2, 4),
    "rmsprop": (1, 4),
    "adagrad": (1, 4),
    "sgd": (0, 0),
}
#: States of bitsandbytes, by family.
_BITSANDBYTES = {"adamw": 2, "lion": 1, "rmsprop": 1, "ademamix": 3}


class OptimizerPlan(NamedTuple):
    """The size of an optimizer's states.

    Attributes:
        size: size in bytes.
        exact: whether this optimizer's states are known; else two float32 states are assumed.
        paged: whether states can move to the memory of the CPU.
    """

    size: int
    exact: bool
    paged: bool = False


def optimizer_states(
    optim: str, trainable: Mapping[str, Tensor], embeddings: frozenset[str] = frozenset()
) -> OptimizerPlan:
    """Compute what the optimizer keeps for the trained parameters.

    Args:
        optim: name of the optimizer in `TrainingArguments`.
        trainable: the parameters, on any device.
        embeddings: the trained embeddings, for which `Trainer` asks 8-bit optimizers for 32-bit states.
    """
    tensors = trainable.values()
    if optim in _TORCH:
        states, counter = _TORCH[optim]
        return OptimizerPlan(sum(states * p.nbytes + counter for p in tensors), exact=True)
    if optim == "adafactor":
        return OptimizerPlan(sum(_adafactor(p) for p in tensors), exact=True)
    family = _bitsandbytes_family(optim)
    if family is None:
        return OptimizerPlan(sum(8 * p.numel() for p in tensors), exact=False)
    states, paged = _BITSANDBYTES[family], optim.startswith("paged")
    if "8bit" not in optim:
        return OptimizerPlan(sum(4 * states * p.numel() for p in tensors), exact=True, paged=paged)
    small = [name in embeddings or p.numel() < _SMALLEST_8BIT for name, p in trainable.items()]
    size = sum(
        4 * states * p.numel() if is_small else states * (p.numel() + 4 * -(-p.numel() // _BLOCK))
        for p, is_small in zip(tensors, small, strict=True)
    )
    tables = 0 if all(small) else min(2, states) * _TABLE
    return OptimizerPlan(size + tables, exact=True, paged=paged)


def _bitsandbytes_family(optim: str) -> str | None:
    plain = optim.removeprefix("paged_")
    if plain in ("adamw_bnb_8bit", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"):
        return plain.split("_")[0]
    family, _, bits = plain.partition("_")
    known = {"adamw_8bit", "adamw_32bit", "lion_8bit", "lion_32bit", "ademamix", "ademamix_8bit", "ademamix_32bit"}
    return family if plain in known and bits in ("", "8bit", "32bit") else None


def _adafactor(parameter: Tensor) -> int:
    """Count float32 means of a matrix's rows and columns, or of a vector's elements, and a root mean square."""
    if parameter.dim() < 2:
        return 4 * parameter.numel() + 4
    *batch, rows, columns = parameter.shape
    count = 1
    for size in batch:
        count *= size
    return 4 * count * (rows + columns) + 4
