"""Saves and loads, with each checkpoint, what the methods cannot recompute."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from accelerate.logging import get_logger
from safetensors.torch import load_file
from torch import Tensor

from ..storage.writing import write_tensors

logger = get_logger(__name__)

STATE_FILE = "safety_state.safetensors"


class Stateful(Protocol):
    """A method, or a weight, with a state of its own."""

    @property
    def name(self) -> str:
        """The name under which its state is saved."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run cannot recompute."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""


def method_states(methods: Iterable[Stateful]) -> dict[str, Tensor]:
    """Return the states of all methods, each under its method's name. Under FSDP2 every rank must call it."""
    return {f"{m.name}.{name}": tensor for m in methods for name, tensor in m.state_dict().items()}


def save_method_states(states: dict[str, Tensor], checkpoint: str) -> None:
    """Write the states beside the weights of a checkpoint; without states, no file is written."""
    if states:
        write_tensors(Path(checkpoint, STATE_FILE), states)


def load_method_states(methods: Iterable[Stateful], checkpoint: str) -> None:
    """Give each method what it saved; one that saved nothing goes on from the model as it is, with a warning."""
    path = os.path.join(checkpoint, STATE_FILE)
    state = load_file(path) if os.path.isfile(path) else {}
    for method in methods:
        mine = {k.removeprefix(f"{method.name}."): v for k, v in state.items() if k.startswith(f"{method.name}.")}
        if mine:
            method.load_state_dict(mine)
        elif method.state_dict():
            logger.warning(
                f"{checkpoint} holds no state of `{method.name}`: it was saved without it. `{method.name}` starts "
                "from the model that was passed to the trainer."
            )
