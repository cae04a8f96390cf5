"""Runs a program that a model wrote, where it can harm nothing: no network, no files, little time and memory.

The work is done by `sandbox_launcher.py`, in a process of its own. Linux only; nothing is run where the kernel does
not allow the isolation. Programs have the standard library and see the system's libraries, but no other file, socket
or process of the machine. The status that says a program has reached its end is in no file of it; one that searches
the interpreter that runs it can still find it. It is a guard against careless and mischievous code, not a virtual
machine: a flaw in the kernel can break it.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")
#: The launcher's exit status when the kernel refuses to isolate; programs cannot reach it.
UNAVAILABLE = 120
# Start of the interpreter and the isolation itself, before the program's own time begins.
_GRACE_S = 5.0


class SandboxUnavailable(RuntimeError):
    """The kernel does not allow the isolation, so nothing was run."""


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: longest time, by the clock and of CPU (rounded up).
        memory_mb: most address space of each process, and most memory of all together, shared memory included, in MiB.
        disk_mb: size of the working folder, in MiB; nothing else can be written.
        processes: most processes at a time, threads included.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    disk_mb: int = 16
    processes: int = 16


def passes(program: str, limits: Limits | None = None) -> bool:
    """Whether `program` runs to its end without an error.

    A program that exits on its own, even with status 0, has not reached its end.

    Args:
        program: Python source: what a model wrote, followed by the tests.
        limits: what the program may use.

    Raises:
        SandboxUnavailable: where the program cannot be isolated.
    """
    limits = limits or Limits()
    reached_the_end = 64 + secrets.randbelow(50)
    with tempfile.TemporaryDirectory(prefix="safe_sft_sandbox_") as folder:
        os.chmod(folder, 0o755)  # where the launcher is root, the program is another user  # nosec B103
        request = json.dumps(
            {"folder": folder, "source": program, "reached_the_end": reached_the_end, **asdict(limits)}
        )
        process = subprocess.Popen(  # no shell  # nosec B603
            [sys.executable, "-I", "-S", str(_LAUNCHER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            _, said = process.communicate(request.encode(), timeout=limits.seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            _end(process)
    if process.returncode == UNAVAILABLE:
        raise _unavailable(said.decode(errors="replace").strip())
    return process.returncode == reached_the_end


def check_sandbox() -> None:
    """Check that programs can be run here, by running an empty one.

    Raises:
        SandboxUnavailable: where even an empty program does not pass.
    """
    if not passes(""):
        raise _unavailable("even an empty program fails")


def _unavailable(reason: str) -> SandboxUnavailable:
    return SandboxUnavailable(
        f"Code that a model wrote cannot be isolated here ({reason}), so it was not run. Use Linux where user "
        "namespaces are allowed (for Docker: --security-opt seccomp=unconfined --security-opt "
        "systempaths=unconfined), or leave out the code task."
    )


def _end(process: subprocess.Popen) -> None:
    """Kill the launcher and its session; the kernel then kills all that runs in its namespace."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
