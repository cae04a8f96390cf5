"""Isolates itself, then runs the program it is given. A script of the standard library alone; see `sandbox.py`.

Reads a JSON request on its standard input. Three processes: this one enters new namespaces; its child is the first
process of the new process namespace, whose end ends all others; the grandchild is limited and becomes the program.
In the request's folder, `python` shows this interpreter's installation (which another user may not be allowed to
reach), and `work` is the one place that can be written.
"""

import ctypes
import json
import math
import os
import resource
import signal
import sys
from typing import Any

UNAVAILABLE = 120
_UNSHARE = 0x00020000 | 0x08000000 | 0x20000000 | 0x40000000  # mounts, IPC, processes, network
_NEW_USER = 0x10000000
_MS_NOSUID_NODEV, _MS_BIND_REC = 2 | 4, 0x1000 | 0x4000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MOUNT_SETATTR = 442  # the system call, on every architecture
_RECURSIVE, _READ_ONLY, _AT_FDCWD = 0x8000, 1, -100
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
#: A user that owns nothing; each launcher takes another, so that their processes are counted apart.
_FIRST_UID, _UIDS = 61_000, 4_000

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def main() -> None:
    """Isolate, run, and exit as the program does."""
    request = json.load(sys.stdin)
    try:
        uid = _enter_namespaces()
        child = os.fork()
        if child == 0:
            _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
            _prepare_files(request, uid)
            os._exit(_run(request, uid))
    except OSError as error:  # in the child too
        sys.stderr.write(f"{error}\n")
        os._exit(UNAVAILABLE)
    os._exit(_status(os.waitpid(child, 0)[1]))


def _enter_namespaces() -> int:
    """Leave the network, the mounts and the processes of the machine; returns the user to become, or -1."""
    if os.geteuid() == 0:
        _check(_libc.unshare(_UNSHARE), "unshare")
        return _FIRST_UID + os.getpid() % _UIDS
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_UNSHARE | _NEW_USER), "unshare")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    return -1


def _prepare_files(request: dict[str, Any], uid: int) -> None:
    """Make all that is mounted read-only, except the working folder, a small file system in memory."""
    _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "mount")
    os.chdir(request["folder"])
    for name in ("python", "work"):
        os.mkdir(name)
    _check(_libc.mount(sys.base_prefix.encode(), b"python", None, _MS_BIND_REC, None), "mount")
    attributes = _MountAttributes(attr_set=_READ_ONLY)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    where, flags = ctypes.c_int(_AT_FDCWD), ctypes.c_uint(_RECURSIVE)
    _check(_libc.syscall(_MOUNT_SETATTR, where, b"/", flags, ctypes.byref(attributes), size), "mount_setattr")
    options = f"size={request['disk_mb']}m,nr_inodes=1024,mode=0700"
    _check(_libc.mount(b"tmpfs", b"work", b"tmpfs", _MS_NOSUID_NODEV, options.encode()), "mount")
    os.chdir("work")
    with open("program.py", "w", encoding="utf-8") as file:
        file.write(request["source"])
    if uid >= 0:
        os.chown(".", uid, uid)
        os.chmod("program.py", 0o644)


def _run(request: dict[str, Any], uid: int) -> int:
    """Run the program; the end of this process ends whatever it has left behind."""
    interpreter = _interpreter()
    heard, told = os.pipe()  # both close when the program starts
    program = os.fork()
    if program == 0:
        try:
            _become_the_program(request, uid, interpreter)
        except OSError as error:
            os.write(told, str(error).encode())
        finally:
            os._exit(1)
    os.close(told)
    failure = os.read(heard, 1000)
    if failure:
        raise OSError(f"the program could not be started: {failure.decode()}")
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    while True:
        ended, status = os.wait()
        if ended == program:
            code = _status(status)
            return 1 if code == UNAVAILABLE else code  # which is for this file alone to say


def _interpreter() -> str:
    """Return the interpreter's path below its installation; only this user may be allowed to read a link to it."""
    prefix = os.path.realpath(sys.base_prefix)
    for python in (sys.executable, getattr(sys, "_base_executable", sys.executable)):
        path = os.path.realpath(python)
        if os.path.commonpath((path, prefix)) == prefix:
            return os.path.relpath(path, prefix)
    raise OSError(f"the interpreter {sys.executable} is not in its own installation, {prefix}")


def _become_the_program(request: dict[str, Any], uid: int, interpreter: str) -> None:
    if uid >= 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    seconds, mb = math.ceil(request["seconds"]), 2**20
    for limit, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, request["memory_mb"] * mb),
        (resource.RLIMIT_FSIZE, request["disk_mb"] * mb),
        (resource.RLIMIT_NPROC, request["processes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    shown = os.path.join(request["folder"], "python")
    python = os.path.join(shown, interpreter)
    environment = {"LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": os.path.join(shown, "lib")}
    os.execve(python, [python, "-I", "-S", "-B", "program.py"], environment)


def _status(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def _check(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
