"""Does the runs of an experiment, each in a process of its own, beside other processes that do the same."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from signal import Signals
from typing import Any

from .folder import DONE, ERROR, RECIPE, RunFolder
from .measured import before_of, collect
from .runs import Run

MODES = ("cached", "retry", "force")
_PATIENCE_S = 0.2
#: How long a process may take to save a checkpoint when it is told to stop.
_FAREWELL_S = 120.0
_LAST_BYTES = 4000


class State(str, Enum):
    """Where a run stands."""

    OPEN = "open"
    RUNNING = "running"
    ELSEWHERE = "running elsewhere"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    STOPPED = "stopped"


#: States of a run from which nothing can start, in words.
_LOST = {State.FAILED: "has failed", State.BLOCKED: "is blocked", State.STOPPED: "was stopped"}


@dataclass
class Progress:
    """A run, and where it stands.

    Attributes:
        folder: the run's folder.
        state: where it stands.
        error: why it failed; empty where it did not.
        seconds: how long it has taken, in this process or in that which did it.
        here: whether this process did it.
    """

    folder: RunFolder
    state: State = State.OPEN
    error: str = ""
    seconds: float = 0.0
    here: bool = False

    @property
    def run(self) -> Run:
        """The run."""
        return self.folder.run


@dataclass
class _Job:
    progress: Progress
    process: "subprocess.Popen[bytes]"
    lock: int
    slot: int
    begun: float = field(default_factory=time.monotonic)


class Engine:
    """Does runs, several at a time; each is done once, by whichever process comes first.

    Args:
        root: folder of the experiment.
        runs: the runs, each before those that start from it.
        jobs: how many are done at a time.
        mode: `cached` does what is neither done nor failed, `retry` also what has failed, `force` everything anew.
        show: is told of all runs whenever one of them changes, and now and then.
        command: makes the command line of a run; that of this package by default.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        runs: Sequence[Run],
        *,
        jobs: int = 1,
        mode: str = "cached",
        show: Callable[[Sequence[Progress]], None] = lambda _: None,
        command: "Callable[[Progress, Engine], list[str]] | None" = None,
    ):
        self.root = Path(root)
        self.all = [Progress(RunFolder(root, run)) for run in runs]
        self._of = {progress.run.digest: progress for progress in self.all}
        self._mode, self._show, self._command = mode, show, command or _command
        self._begun = time.time()
        self._count, self._slots, self._devices = jobs, list(range(jobs)), _devices()
        self._jobs: list[_Job] = []

    def go(self) -> list[Progress]:
        """Do all runs; returns when each is done, failed or stopped, here or elsewhere."""
        try:
            while True:
                self._look()
                while self._slots and self._start_one():
                    pass
                self._show(self.all)
                if not self._jobs and not self._open():
                    return self.all
                self._end(self._ended())
        finally:
            self._stop()
            self._show(self.all)

    def parent(self, progress: Progress) -> Progress | None:
        """Return the run that a merge or a later stage starts from; None for what starts from the aligned model."""
        parent = progress.run.parent
        return None if parent is None else self._of[parent.digest]

    def _open(self) -> list[Progress]:
        return [one for one in self.all if one.state in (State.OPEN, State.ELSEWHERE)]

    def _look(self) -> None:
        """See what is done or has failed, here, elsewhere or before."""
        for one in self._open():
            parent = self.parent(one)
            if found := self._counted(one, DONE):
                one.state, one.seconds = State.DONE, float(found.get("seconds", 0.0))
            elif self._counted(one, ERROR):
                one.state, one.error = State.FAILED, one.folder.error() or ""
            elif parent is not None and parent.state in _LOST:
                one.state = State.BLOCKED
                one.error = f"{parent.run.name}, which it starts from, {_LOST[parent.state]}."

    def _counted(self, one: Progress, name: str) -> dict[str, Any] | None:
        """Return what a file of a run says, unless this mode does not count it: then only one written since counts."""
        anew = self._mode == "force" or (self._mode == "retry" and name == ERROR)
        if anew and one.folder.age_of(name) < self._begun:
            return None
        return one.folder.done() if name == DONE else ({"error": error} if (error := one.folder.error()) else None)

    def _start_one(self) -> bool:
        """Start a run that nobody does; returns whether there was one."""
        for one in self._open():
            parent = self.parent(one)
            if parent is not None and parent.state is not State.DONE:
                continue
            lock = one.folder.hold()
            if lock is None:
                one.state = State.ELSEWHERE
                continue
            one.state = State.OPEN
            self._look()  # whoever held it may have done it in the meantime
            if one.state is not State.OPEN:
                os.close(lock)
                continue
            self._start(one, lock)
            return True
        return False

    def _start(self, one: Progress, lock: int) -> None:
        one.folder.begin(anew=self._mode == "force")
        slot = self._slots.pop(0)
        cores = str(max(1, (os.cpu_count() or 1) // self._count))  # shared out, or the processes wait for each other
        default = {} if self._devices else {"OMP_NUM_THREADS": cores}
        device = {"CUDA_VISIBLE_DEVICES": self._devices[slot % len(self._devices)]} if self._devices else {}
        with one.folder.log.open("ab") as log:
            process = subprocess.Popen(  # no shell  # nosec B603
                self._command(one, self),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**default, **os.environ, **_variables(one.run), **device},
                start_new_session=True,  # Ctrl-C reaches this process, which tells the others once
                pass_fds=[lock],  # the run stays held while its process lives, even if this one is killed
            )
        one.state, one.here = State.RUNNING, True
        self._jobs.append(_Job(one, process, lock, slot))

    def _ended(self) -> Iterator[_Job]:
        """Yield the jobs that have ended, after waiting a little for one."""
        if self._jobs:
            with suppress(subprocess.TimeoutExpired):
                self._jobs[0].process.wait(_PATIENCE_S)
        else:
            time.sleep(_PATIENCE_S)
        for job in self._jobs:
            job.progress.seconds = time.monotonic() - job.begun
        yield from [job for job in self._jobs if job.process.poll() is not None]

    def _end(self, jobs: Iterator[_Job]) -> None:
        for job in jobs:
            self._jobs.remove(job)
            self._slots.append(job.slot)
            with _given_back(job.lock):
                self._judge(job.progress, job.process.returncode)

    def _judge(self, one: Progress, status: int) -> None:
        """Complete the run, or keep its error; one that was stopped by a signal is neither, and goes on next time."""
        if status < 0 or status >= 128:
            number = -status if status < 0 else status - 128
            one.state, one.error = State.STOPPED, f"It was stopped by {_signal(number)}. Start the command again."
            return
        error = _last_line(one.folder.log)
        if status in (0, 1):  # 1: a bound was not kept, and the model is saved and measured
            try:
                measured = collect(one.folder, one.seconds)
                if parent := self.parent(one):
                    measured["before"] = before_of(one.run, measured, parent.folder.done() or {})
                one.folder.finish(measured)
                one.state = State.DONE
                return
            except ValueError as problem:
                error = str(problem) if status == 0 else error
        one.state, one.error = State.FAILED, error
        one.folder.fail(error)

    def _stop(self) -> None:
        """Tell the processes to end, and wait for them: each saves a checkpoint if its recipe says so."""
        for job in self._jobs:
            job.process.terminate()
        for job in self._jobs:
            try:
                job.process.wait(_FAREWELL_S)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            os.close(job.lock)
            job.progress.state = State.STOPPED
        self._jobs = []


@contextmanager
def _given_back(lock: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(lock)


def _command(one: Progress, engine: Engine) -> list[str]:
    """Return the command line of a run."""
    recipe = ["--config", str(one.folder.path / RECIPE)]
    if one.run.after is not None and (parent := engine.parent(one)) is not None:
        return [sys.executable, "-m", "safe_sft.cli.merge_run", *recipe, "--tuned", str(parent.folder.model)]
    from ..trainer.checkpoints import newest_checkpoint

    resumes = newest_checkpoint(str(one.folder.model), warn=False) is not None  # the run itself will warn
    go_on = ["--resume_from_checkpoint", "true"] if resumes else []
    return [sys.executable, "-m", "safe_sft.cli.train", *recipe, *go_on]


def _variables(run: Run) -> dict[str, str]:
    """Return the variables of a recipe's `env`, which its file in the run's folder lacks: they may be secrets."""
    return {name: str(value) for name, value in run.recipe.get("env", {}).items()}


def _devices() -> list[str]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; none on a CPU machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _last_line(log: Path) -> str:
    """Return the last line that a process printed, which says what is wrong."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    errors = [line.partition("error: ")[2] for line in said if line.startswith("safe-sft ") and "error: " in line]
    return (errors or said or ["It printed nothing."])[-1]


def _signal(number: int) -> str:
    return Signals(number).name if number in list(Signals) else f"signal {number}"
