"""A merge holds no more than a few shards, whatever the size of the models."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

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


def checkpoint(folder: Path, layers: int, shards: int, seed: int) -> str:
    """A LLaMA of random bfloat16 tensors in `shards` files: 7 matrices a layer, and one that the norms fill up."""
    config = LlamaConfig(
        vocab_size=2028,
        hidden_size=1024,
        intermediate_size=2048,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=256,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in LlamaForCausalLM(config).named_parameters()}
    large = sorted(
        (n for n, shape in shapes.items() if len(shape) == 2), key=lambda n: n == "model.embed_tokens.weight"
    )
    generator = torch.Generator().manual_seed(seed)
    weight_map = {}
    for shard in range(shards):
        held = large[shard * len(large) // shards : (shard + 1) * len(large) // shards]
        held += [name for name in shapes if name not in large] if shard == shards - 1 else []
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        content = {n: torch.randn(shapes[n], generator=generator).to(torch.bfloat16) for n in held}
        save_file(content, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(held, file))
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return str(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_peak_memory_is_below_three_shards(tmp_path, method):
    layers = SHARDS * SHARD // (2 * NUMBERS) // 7
    # The layouts differ: the tuned model's shards are half as large.
    folders = [
        checkpoint(tmp_path / "a", layers, SHARDS, 0),
        checkpoint(tmp_path / "t", layers, 2 * SHARDS, 1),
        checkpoint(tmp_path / "s", 0, 1, 2),
    ]
    command = [sys.executable, "-c", MEASURE, *folders, method, str(tmp_path / "m")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    peak = int(result.stdout.split()[-1])
    # At least a tensor of each side and a block: less would mean that nothing was measured.
    assert peak > 4 * NUMBERS
    assert peak < 3 * SHARD, f"{peak / SHARD:.2f} shards"
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) == SHARDS
