"""A merge holds no more than a few shards, whatever the size of the models."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from safe_sft.storage.writing import write_json

SHARD = 32 * 2**20
SHARDS = 8
NUMBERS = 2**21  # of a tensor: 4 MiB in bfloat16

# Peak resident memory (mapped pages too) over that of a process that has merged before. `ru_maxrss` would not do: the
# imports peak higher than the merge, and only the kernel's own mark can be reset.
MEASURE = """
import sys
from pathlib import Path
from safe_sft.merging import merge

def resident(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) * 1024

aligned, tuned, small, method, output = sys.argv[1:]
merge(small, small, method, 0.5, output + "-small")
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
merge(aligned, tuned, method, 0.5, output, max_shard_size="32MiB")
print(resident("VmHWM") - before)
"""


def checkpoint(folder: Path, tensors: int, shards: int, seed: int) -> str:
    """Random bfloat16 tensors in `shards` files."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    names = [f"model.layers.{i:02d}.weight" for i in range(tensors)]
    weight_map = {}
    for shard in range(shards):
        held = names[shard * tensors // shards : (shard + 1) * tensors // shards]
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        content = {n: torch.randn(NUMBERS, generator=generator).to(torch.bfloat16) for n in held}
        save_file(content, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(held, file))
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    write_json(folder / "config.json", {"model_type": "llama"})
    return str(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_peak_memory_is_below_three_shards(tmp_path, method):
    tensors = SHARDS * SHARD // (2 * NUMBERS)
    # The layouts differ: the tuned model's shards are half as large.
    folders = [
        checkpoint(tmp_path / "a", tensors, SHARDS, 0),
        checkpoint(tmp_path / "t", tensors, 2 * SHARDS, 1),
        checkpoint(tmp_path / "s", 1, 1, 2),
    ]
    command = [sys.executable, "-c", MEASURE, *folders, method, str(tmp_path / "m")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    peak = int(result.stdout.split()[-1])
    # At least a tensor of each side and a block: less would mean that nothing was measured.
    assert peak > 4 * NUMBERS
    assert peak < 3 * SHARD, f"{peak / SHARD:.2f} shards"
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) == SHARDS
