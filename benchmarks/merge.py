"""How fast and how small a linear merge is: a random checkpoint against copying its files.

    python benchmarks/merge.py [--gigabytes 1] [--dtype bfloat16] [--threads 1]

A merge reads two checkpoints and writes one; a copy reads one and writes one. Both are compared by the bytes that they
move; the evidence of a merge, which reads all files once more, is not in it. The files are in the page cache, so
this is the machine's memory and not its disk.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Runs in a process of its own, so that the peak is that of the merge.
MERGE = """
import shutil, sys, time
from pathlib import Path
import torch
from safe_sft.merging.merge import write_merge

def resident(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) * 1024

aligned, tuned, small, output, threads, runs = sys.argv[1:]
torch.set_num_threads(int(threads))
write_merge(small, small, "linear", 0.5, Path(output))
Path("/proc/self/clear_refs").write_text("5")
before, times = resident("VmRSS"), []
for _ in range(int(runs)):
    shutil.rmtree(output)
    start = time.perf_counter()
    write_merge(aligned, tuned, "linear", 0.6, Path(output), "256MiB")
    times.append(time.perf_counter() - start)
print(resident("VmHWM") - before, *times)
"""


def checkpoint(folder: Path, size: int, dtype: str, seed: int, shard: int = 2**28) -> Path:
    """Write a checkpoint of random tensors of 16 MiB, in shards of 256 MiB."""
    import torch
    from safetensors.torch import save_file

    from safe_sft.storage.writing import write_json

    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    width = getattr(torch, dtype).itemsize
    per_shard, shards = max(1, min(shard, size) // 2**24), max(1, size // shard)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        names = [f"model.layers.{number}.{i}.weight" for i in range(per_shard)]
        content = {
            name: torch.randn(2**24 // width // 1024, 1024, generator=generator).to(getattr(torch, dtype))
            for name in names
        }
        save_file(content, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, file))
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    write_json(folder / "config.json", {"model_type": "llama"})
    return folder


def copy(source: Path, target: Path, runs: int) -> list[float]:
    """Copy the files of `source`, each time into a new folder; returns the seconds."""
    times = []
    for _ in range(runs):
        shutil.rmtree(target, ignore_errors=True)
        start = time.perf_counter()
        shutil.copytree(source, target)
        times.append(time.perf_counter() - start)
    shutil.rmtree(target)
    return times


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of each checkpoint")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        root = Path(name)
        size = int(args.gigabytes * 2**30)
        aligned, tuned = (checkpoint(root / side, size, args.dtype, seed) for seed, side in enumerate(("a", "t")))
        small = checkpoint(root / "small", 2**24, args.dtype, 2)
        copies = copy(aligned, root / "copy", args.runs)
        arguments = [*map(str, (aligned, tuned, small, root / "merged", args.threads, args.runs))]
        output = subprocess.run(
            [sys.executable, "-c", MERGE, *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
        peak, *merges = (float(number) for number in output.stdout.split()[-1 - args.runs :])
        largest = max(file.stat().st_size for file in aligned.glob("*.safetensors"))
    speeds = [moved * size / min(times) / 2**30 for moved, times in ((2, copies), (3, merges))]
    table = Table("", "seconds (best)", "GiB moved", "GiB/s", title=f"{args.gigabytes:g} GiB of {args.dtype}")
    table.add_row("copy the files", f"{min(copies):.2f}", f"{2 * size / 2**30:g}", f"{speeds[0]:.2f}")
    table.add_row("linear merge", f"{min(merges):.2f}", f"{3 * size / 2**30:g}", f"{speeds[1]:.2f}")
    console = Console()
    console.print(table)
    console.print(f"per byte: {speeds[1] / speeds[0]:.2f} of copying (goal 0.70)")
    console.print(f"peak memory: {peak / largest:.2f} x the largest shard (goal 3)")


if __name__ == "__main__":
    main()
