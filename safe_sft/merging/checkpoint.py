"""Reads checkpoints as named tensors, one at a time, by memory map."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..models.fit import ModelError
from ..models.folders import INDEX, MODEL_CONFIG, WEIGHTS, read_json
from ..models.opening import indexed_files, own_file, reason_of

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_QUANT_STATE = ".quant_state.bitsandbytes__"


class TensorSource(ABC):
    """Named tensors whose shapes and dtypes are known before they are read.

    Attributes:
        folder: folder of the model's configuration.
        label: folder or Hub name, as the user wrote it.
    """

    folder: Path
    label: str

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return the names of all tensors, in the order in which reading is cheapest."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor of this name."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """Return the tensor's dtype in its model; `read` may give a wider one."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Read the tensor of this name; where it is stored as it is, a memory map."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of the model's `config.json`."""
        return read_json(own_file(self.folder, self.folder / MODEL_CONFIG))

    @cached_property
    def tied(self) -> bool:
        """Whether head and embedding are one tensor; a `config.json` may leave this to the architecture's default."""
        from ..models.loading import load_config

        return bool(load_config(self.folder).get_text_config().tie_word_embeddings)


class SafetensorsFiles:
    """Tensors in several safetensors files, one of which is open at a time.

    Args:
        files: the files, in the order in which they are read.
    """

    def __init__(self, files: Sequence[Path]):
        self._files: dict[str, Path] = {}
        self._headers: dict[str, tuple[tuple[int, ...], str]] = {}
        self._open: tuple[Path, Any] | None = None
        for file in files:
            with _opened(file) as handle:
                for name in handle.offset_keys():
                    entry = handle.get_slice(name)
                    self._files[name] = file
                    self._headers[name] = (tuple(entry.get_shape()), entry.get_dtype())

    @property
    def names(self) -> list[str]:
        """Return the names of all tensors, file by file, in the order of their data."""
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor of this name."""
        return self._headers[name][0]

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of the tensor of this name.

        Raises:
            ValueError: for a dtype that cannot be merged, such as 8-bit floats.
        """
        stored = self._headers[name][1]
        if stored not in DTYPES:
            raise ValueError(
                f"The tensor '{name}' in {self._files[name]} is stored as {stored}, which cannot be merged. Load the "
                "model in bfloat16 (`model.dequantize()` where it is quantised), and save it with `save_pretrained`."
            )
        return DTYPES[stored]

    def read(self, name: str) -> Tensor:
        """Read the tensor as a memory map; its memory is freed with the tensor and the open file."""
        file = self._files[name]
        if self._open is None or self._open[0] != file:
            self._open = None  # unmap the old file before the new one is mapped
            self._open = (file, _opened(file))
        return self._open[1].get_tensor(name)


@final
class Checkpoint(TensorSource):
    """A full model in safetensors files; 4-bit weights of bitsandbytes are read dequantised.

    Args:
        folder: folder of the model.
        label: folder or Hub name, as the user wrote it.

    Raises:
        FileNotFoundError: when the folder has no safetensors.
        ValueError: when the model is quantised in another way than bitsandbytes 4-bit.
    """

    def __init__(self, folder: Path, label: str):
        self.folder, self.label = folder, label
        self._files = SafetensorsFiles(_weight_files(folder, label))
        self._refuse_other_quantisation()
        # A 4-bit weight `x` comes with `x.absmax`, `x.quant_map`, …: its parts, by their last names.
        self._parts: dict[str, dict[str, str]] = {
            n.split(_QUANT_STATE)[0]: {} for n in self._files.names if _QUANT_STATE in n
        }
        self._names = []
        for name in self._files.names:
            weight = next((w for w in _prefixes(name) if w in self._parts), None)
            if weight is None:
                self._names.append(name)
            else:
                self._parts[weight][name.removeprefix(f"{weight}.")] = name
        self._states: dict[str, Any] = {}

    @property
    def names(self) -> Sequence[str]:
        """Return the names of all tensors, file by file, in the order of their data."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor, dequantised."""
        return tuple(self._state(name)["shape"]) if name in self._parts else self._files.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """Return the tensor's dtype; of a 4-bit weight, the one that the model dequantises it to."""
        return getattr(torch, self._state(name)["dtype"]) if name in self._parts else self._files.dtype(name)

    def read(self, name: str) -> Tensor:
        """Read the tensor; a 4-bit weight is dequantised to float32, without rounding to the model's dtype."""
        return self._dequantised(name) if name in self._parts else self._files.read(name)

    def _state(self, name: str) -> dict[str, Any]:
        """Return the packed part of a 4-bit weight's state: its shape, dtype and block size."""
        if name not in self._states:
            from bitsandbytes.utils import unpack_tensor_to_dict

            packed = next(full for part, full in self._parts[name].items() if f".{part}".startswith(_QUANT_STATE))
            self._states[name] = unpack_tensor_to_dict(self._files.read(packed))
        return self._states[name]

    def _dequantised(self, name: str) -> Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        parts = {part: self._files.read(full) for part, full in self._parts[name].items()}
        state = QuantState.from_dict(parts, torch.device("cpu"))
        state.dtype = torch.float32
        return dequantize_4bit(self._files.read(name), state)

    def _refuse_other_quantisation(self) -> None:
        quantisation = self.config.get("quantization_config")
        if quantisation and not quantisation.get("load_in_4bit"):
            raise ValueError(
                f"'{self.label}' is quantised with {quantisation.get('quant_method')!r}, and only 4-bit weights of "
                "bitsandbytes are dequantised here. Load it, call `model.dequantize()`, and save it with "
                "`save_pretrained`."
            )


def _prefixes(name: str) -> list[str]:
    """Return the prefixes of a dotted name: `a.b` and `a` of `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise ModelError(
            f"The file '{file}' cannot be read: {reason_of(error)} Complete the download or the copy, or save it anew."
        ) from error


def _weight_files(folder: Path, label: str) -> list[Path]:
    if (folder / INDEX).is_file():
        return sorted(indexed_files(folder, label))
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    raise FileNotFoundError(
        f"'{label}' has neither {WEIGHTS} nor {INDEX} (looked in {folder}). Other formats, such as pytorch_model.bin, "
        "can run code when they are read: load the model with `AutoModelForCausalLM.from_pretrained` and save it with "
        "`save_pretrained`, which writes safetensors."
    )
