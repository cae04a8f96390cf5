"""Kills a run again and again while it trains and measures attack success: do memory and open files stay flat?

    python -m benchmarks.soak --minutes 60 --output outputs/soak

A tiny model trains with `der+ema`, measures attack success every 20 steps and saves every 10. Each process is killed 5
to 25 seconds after it began to train, and the next one goes on from its newest checkpoint. Prints, for each tenth of
the steps, the most memory and open files of a process.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from safe_sft import SafeSFTTrainer
from safe_sft.trainer.checkpoints import newest_checkpoint


class Watch(TrainerCallback):
    """Writes the memory (MiB) and the open files of this process at each tenth step."""

    def __init__(self, path: Path):
        self._path = path

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write a line."""
        if state.global_step % 10 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            line = {"pid": os.getpid(), "step": state.global_step, "memory": pages * os.sysconf("SC_PAGESIZE") / 2**20}
            line["files"] = len(os.listdir("/proc/self/fd"))
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def work(folder: Path) -> None:
    """Train from the newest checkpoint on, for ever."""
    from tests.conftest import make_config, make_model, make_tokenizer, safety_rows, task_rows

    config = make_config(
        folder,
        safety_method="der+ema",
        max_steps=10**6,
        save_strategy="steps",
        save_steps=10,
        save_total_limit=2,
        safety_eval_steps=20,
        safety_eval_size=8,
        safety_eval_max_new_tokens=8,
    )
    rows = task_rows(64)
    trainer = SafeSFTTrainer(
        make_model(), config, train_dataset=rows, processing_class=make_tokenizer(), safety_dataset=safety_rows()
    )
    trainer.add_callback(Watch(folder / "watch.jsonl"))
    trainer.train(resume_from_checkpoint=newest_checkpoint(str(folder)))


def soak(folder: Path, minutes: float) -> int:
    """Start and kill workers; returns how many were killed.

    Raises:
        RuntimeError: when a worker ends by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end, kills = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        command = [sys.executable, "-m", "benchmarks.soak", "--work", "--output", str(folder)]
        with (folder / "worker.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as worker:
            while not trains(folder, worker.pid) and worker.poll() is None:
                time.sleep(0.5)
            try:
                worker.wait(random.uniform(5, 25))
            except subprocess.TimeoutExpired:
                worker.send_signal(signal.SIGKILL)
                kills += 1
            else:
                raise RuntimeError(f"A worker ended by itself; see {folder / 'worker.log'}.")
    return kills


def trains(folder: Path, pid: int) -> bool:
    """Whether the worker has trained some steps."""
    path = folder / "watch.jsonl"
    return path.is_file() and f'"pid": {pid},' in path.read_text().rpartition("\n")[0].rpartition("\n")[2]


def main() -> None:
    """Soak, or work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--output", type=Path, default=Path("outputs/soak"))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.output)
        return
    kills = soak(args.output, args.minutes)
    lines = [json.loads(line) for line in (args.output / "watch.jsonl").read_text().splitlines()]
    print(f"{kills} kills, {len({line['pid'] for line in lines})} processes, {lines[-1]['step']} steps")
    for tenth in range(10):
        part = lines[tenth * len(lines) // 10 : (tenth + 1) * len(lines) // 10]
        memory, files = max(line["memory"] for line in part), max(line["files"] for line in part)
        print(f"tenth {tenth + 1}: steps to {part[-1]['step']}, memory at most {memory:.0f} MiB, {files} open files")


if __name__ == "__main__":
    main()
