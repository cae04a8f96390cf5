"""GPUs, from their makers' data sheets: memory, and peak throughput of dense matrix products in 16 bits."""

import re
from typing import NamedTuple

GIB = 2**30
MIB = 2**20

#: Part of the peak that training is assumed to reach.
UTILIZATION = 0.35
#: What the driver, the libraries' workspaces and fragmentation take, beside the tensors: assumed.
OVERHEAD_BYTES = 1 * GIB


class GPU(NamedTuple):
    """The numbers of one kind of GPU.

    Attributes:
        name: name on the command line.
        memory: memory that the driver reports, in bytes.
        flops: peak operations per second, dense, bf16 inputs with fp32 sums (fp16 where there is no bf16).
        has_bf16: whether matrix units take bf16.
    """

    name: str
    memory: int
    flops: float
    has_bf16: bool = True

    def fits(self, used: int) -> bool:
        """Return whether tensors of `used` bytes, and the overhead, fit."""
        return used + OVERHEAD_BYTES <= self.memory


GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("T4", 15360 * MIB, 65e12, has_bf16=False),
        GPU("L4", 23034 * MIB, 121e12),
        GPU("A10G", 23028 * MIB, 70e12),
        GPU("RTX3090", 24576 * MIB, 71e12),
        GPU("RTX4090", 24564 * MIB, 165e12),
        GPU("A100-40GB", 40960 * MIB, 312e12),
        GPU("L40S", 46068 * MIB, 362e12),
        GPU("A100-80GB", 81920 * MIB, 312e12),
        GPU("H100", 81559 * MIB, 989e12),
        GPU("H200", 143771 * MIB, 989e12),
        GPU("B200", 183359 * MIB, 2250e12),
    )
}

_ALIASES = {"3090": "RTX3090", "4090": "RTX4090", "A100": "A100-80GB", "A10040": "A100-40GB", "A10080": "A100-80GB"}


def find_gpu(name: str) -> GPU:
    """Return a GPU by its name; case, spaces and dashes do not matter.

    Raises:
        ValueError: when it is not in the table.
    """
    wanted = _plain(name)
    known = {_plain(gpu): gpu for gpu in GPUS} | {_plain(alias): gpu for alias, gpu in _ALIASES.items()}
    if wanted not in known:
        raise ValueError(f"`--gpu {name}` is unknown. Choose from: {', '.join(GPUS)}.")
    return GPUS[known[wanted]]


def find_gpus(name: str) -> list[GPU]:
    """Return a GPU by its name, or, for a size such as `24GB`, all in the table with that much memory.

    Raises:
        ValueError: when there is none.
    """
    size = _size(name)
    if size is None:
        try:
            return [find_gpu(name)]
        except ValueError as error:
            raise ValueError(f"{error} Or give a memory, such as `--gpu 24GB`.") from None
    found = [gpu for gpu in GPUS.values() if abs(gpu.memory / size - 1) < 0.07]
    if not found:
        sizes = ", ".join(f"{gpu.name} ({gpu.memory / GIB:.0f} GiB)" for gpu in GPUS.values())
        raise ValueError(f"No GPU of the table has the memory `--gpu {name}`. Choose from: {sizes}.")
    return found


def memory_of(name: str) -> int:
    """Return the memory, in bytes, of a GPU given by name or by size such as `24GB`.

    Raises:
        ValueError: when it is neither.
    """
    size = _size(name)
    # What is sold as 24 GB reports a little less than 24 GiB.
    return find_gpus(name)[0].memory if size is None else int(size * 0.95)


def _size(name: str) -> float | None:
    """Return the bytes of a size such as `24GB`; None for a name."""
    size = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)\s*", name, re.IGNORECASE)
    return None if size is None else float(size[1]) * GIB


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]|NVIDIA|GEFORCE", "", name.upper())
