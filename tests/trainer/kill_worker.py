"""Trains the tiny model and is killed on the way: after a while, at a change of a file, or with half of one written.

    python -m tests.trainer.kill_worker FOLDER [after-step STEP SECONDS | at-write NUMBER | half-written NUMBER]

Goes on from the newest checkpoint of FOLDER, where there is one. Without a kill it trains to the end, and writes the
weights to FOLDER/final.safetensors.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from peft import peft_model
from safetensors.torch import save_file
from transformers import TrainerCallback

from safe_sft.trainer.checkpoints import newest_checkpoint
from tests.conftest import make_trainer, trained_weights

#: Events of Python's audit hooks that come before a file is changed.
WRITES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAfter(TrainerCallback):
    """Kills the process some seconds after a step has ended, wherever training is then."""

    def __init__(self, step: int, seconds: float):
        self.step, self.seconds = step, seconds

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            threading.Thread(target=lambda: (time.sleep(self.seconds), kill()), daemon=True).start()


def kill_at_write(folder: Path, number: int) -> None:
    """Kill the process before the given write to a file in `folder`, the first one having the number 1."""
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in WRITES or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
            return
        count += 1
        if count == number:
            kill()

    sys.addaudithook(hook)


def kill_half_written(folder: Path, number: int) -> None:
    """Kill the process when half of a file of tensors is written, the first one having the number 1."""
    count = 0

    def halved(write):
        def wrapped(content, file, *arguments, **named):
            nonlocal count
            write(content, file, *arguments, **named)
            if isinstance(file, (str, os.PathLike)) and str(file).startswith(str(folder)):
                count += 1
                if count == number:
                    os.truncate(file, Path(file).stat().st_size // 2)
                    kill()

        return wrapped

    torch.save = halved(torch.save)
    peft_model.safe_save_file = halved(peft_model.safe_save_file)


def main(folder: Path, kind: str = "", *numbers: str) -> None:
    trainer = make_trainer(
        folder, "der+ema", max_steps=6, save_strategy="steps", save_steps=1, save_total_limit=2, optim="adamw_torch"
    )
    if kind == "after-step":
        trainer.add_callback(KillAfter(int(numbers[0]), float(numbers[1])))
    elif kind == "at-write":
        kill_at_write(folder, int(numbers[0]))
    elif kind == "half-written":
        kill_half_written(folder, int(numbers[0]))
    trainer.train(resume_from_checkpoint=newest_checkpoint(str(folder)))
    save_file(trained_weights(trainer), folder / "final.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
