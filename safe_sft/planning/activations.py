"""Counts what the forward keeps for the backward, by running it on the meta device."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from ..models.parts import backbone
from .attention import counted_product

# What autocast runs in 16 bits, among the operators of language models.
_LOWERED = {F.linear, torch.matmul, torch.bmm, torch.baddbmm, torch.einsum, Tensor.matmul, Tensor.__matmul__}


@dataclass(frozen=True)
class Activations:
    """What a forward of the backbone keeps, in bytes.

    Attributes:
        kept: all bytes that are kept without gradient checkpointing.
        checkpoints: bytes kept with gradient checkpointing: the inputs of each layer, and what is outside the layers.
        largest_layer: most bytes that one layer keeps beside its inputs when its forward runs again.
        widest: most output elements per token of a linear layer.
        state_bytes: size of the last hidden state of one token.
        layers: number of layers that can run again in the backward pass.
    """

    kept: int
    checkpoints: int
    largest_layer: int
    widest: int
    state_bytes: int
    layers: int


def count_activations(
    model: Any, rows: int, width: int, *, autocast: torch.dtype | None, checkpointing: bool
) -> Activations:
    """Run the backbone on the meta device and count what it keeps.

    Args:
        model: the model, on the meta device.
        rows: rows of a batch.
        width: tokens of each row.
        autocast: dtype of mixed precision, or None without it.
        checkpointing: whether gradient checkpointing is on, for which TRL lets the first layer's inputs need a
            gradient.

    Raises:
        ValueError: when the model cannot run without weights.
    """
    counter = SavedBytes(model)
    handles = [*counter.watch_layers()]
    if checkpointing:
        embeddings = model.get_input_embeddings()
        handles.append(embeddings.register_forward_hook(lambda module, args, output: output.requires_grad_(True)))
    ids = torch.zeros(rows, width, dtype=torch.long, device="meta")
    # Without a mask, eager attention looks at the positions, which have no values here.
    mask = torch.ones_like(ids) if model.config._attn_implementation == "eager" else None
    try:
        with _Autocast(autocast), counter:
            states = backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be run without weights, so its activations cannot be counted "
            f"({str(error).splitlines()[0]})."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    widest = max(_width(m) for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not _head(model))
    return Activations(
        counter.total(), counter.checkpoints(), counter.largest_layer(), widest, states[0, 0].nbytes, counter.layers
    )


def _width(layer: nn.Linear | Conv1D) -> int:
    return layer.nf if isinstance(layer, Conv1D) else layer.out_features


def _head(model: Any) -> nn.Module | None:
    return model.get_output_embeddings()


@dataclass
class SavedBytes:
    """A context that counts once each storage that autograd keeps in it, except those of parameters and buffers.

    Attributes:
        model: the model whose forward is counted.
    """

    model: nn.Module
    layers: int = 0
    _own: set[int] = field(default_factory=set)
    _saved: dict[int, tuple[Any, int | None]] = field(default_factory=dict)
    _inputs: dict[int, Any] = field(default_factory=dict)
    _layer: int | None = None

    def __post_init__(self) -> None:
        self._own = {_key(tensor) for tensor in (*self.model.parameters(), *self.model.buffers())}
        self._hooks: Any = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def __enter__(self) -> "SavedBytes":
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)

    def watch_layers(self) -> Iterator[Any]:
        """Put hooks on the layers that gradient checkpointing runs again, to count what each keeps."""
        layers = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        self.layers = len(layers)
        for index, layer in enumerate(layers):
            yield layer.register_forward_pre_hook(self._enter(index), with_kwargs=True)
            yield layer.register_forward_hook(self._leave)

    def total(self) -> int:
        """Return all bytes that are kept."""
        return sum(storage.nbytes() for storage, _ in self._saved.values())

    def checkpoints(self) -> int:
        """Return the bytes that are left when every layer keeps only its inputs."""
        outside = {key: storage for key, (storage, layer) in self._saved.items() if layer is None}
        return sum(storage.nbytes() for storage in {**outside, **self._inputs}.values())

    def largest_layer(self) -> int:
        """Return the most bytes that one layer keeps beside its inputs."""
        sums = [0] * max(1, self.layers)
        for key, (storage, layer) in self._saved.items():
            if layer is not None and key not in self._inputs:
                sums[layer] += storage.nbytes()
        return max(sums)

    def _pack(self, tensor: Tensor) -> Tensor:
        key = _key(tensor)
        if key not in self._own and key not in self._saved:
            # The storage is held, so that its address is not another's later.
            self._saved[key] = (tensor.untyped_storage(), self._layer)
        return tensor

    def _enter(self, index: int) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self._layer = index
            for tensor in _tensors((args, kwargs)):
                if _key(tensor) not in self._own:
                    self._inputs[_key(tensor)] = tensor.untyped_storage()

        return hook

    def _leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._layer = None


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


class _Autocast(TorchFunctionMode):
    """Mixed precision on the meta device, which torch's own autocast does not know.

    Args:
        dtype: dtype of matrix products; None changes nothing.
    """

    def __init__(self, dtype: torch.dtype | None):
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is F.scaled_dot_product_attention:  # whose form on the meta device keeps the matrix of attention
            return counted_product(*args, **(kwargs or {}))
        if self._dtype is not None and func in _LOWERED:
            args = tuple(self._lowered(arg) for arg in args)
            kwargs = {key: self._lowered(value) for key, value in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))

    def _lowered(self, value: Any) -> Any:
        is_wide = isinstance(value, Tensor) and value.dtype == torch.float32
        return value.to(self._dtype) if is_wide else value
