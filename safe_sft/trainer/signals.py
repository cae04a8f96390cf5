"""Saves a checkpoint when the process is told to stop, as a cluster does before it takes a machine back."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal has ended training, after a checkpoint was written.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class _SaveAndStop(TrainerCallback):
    """Ends training with a checkpoint after the step in which a signal came, on all ranks after the same one."""

    def __init__(self, device: torch.device):
        self._device = device
        self.came = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint if any rank has got a signal."""
        self.came = self._of_all_ranks(args.world_size)
        if self.came:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End training, now that the checkpoint is written.

        Raises:
            Stopped: when a signal came before.
        """
        if self.came:
            raise Stopped(self.came)

    def _of_all_ranks(self, ranks: int) -> int:
        if ranks < 2:
            return self.came
        found = torch.tensor(self.came, device=self._device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)


@contextmanager
def saving_on_signal(trainer: Trainer) -> Iterator[None]:
    """Let SIGINT and SIGTERM inside this context end training with a checkpoint; a second one ends it at once.

    Args:
        trainer: the trainer; nothing is changed unless its `args.save_on_signal` is set.
    """
    if not getattr(trainer.args, "save_on_signal", False):
        yield
        return
    callback = _SaveAndStop(trainer.args.device)
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        callback.came = number
        restore()
        said = f"\n{signal.Signals(number).name}: a checkpoint is saved after this step, and training ends.\n"
        os.write(2, said.encode())  # a handler may have interrupted a `print`

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    if threading.current_thread() is threading.main_thread():  # where alone handlers may be set
        before = {number: signal.signal(number, note) for number in _SIGNALS}
    trainer.add_callback(callback)
    try:
        yield
    finally:
        restore()
        trainer.remove_callback(callback)
