"""Isolates itself, then runs the program it is given. A script of the standard library alone; see `sandbox.py`.

Reads a JSON request on its standard input. Three processes: this one enters new namespaces; its child is the first
process of the new process namespace, whose end ends all others; the grandchild is limited and becomes the program.
The program's root holds the system's libraries, a few devices, a `/proc` of its own processes, and the request's
folder: there, `python` shows this interpreter's installation (which another user may not be allowed to reach), and
`work` is the one place that can be written. Nothing else of the machine is there, its sockets least of all.
"""

import ctypes
import json
import math
import os
import resource
import signal
import sys
import time
from typing import Any

UNAVAILABLE = 120
_UNSHARE = 0x00020000 | 0x08000000 | 0x20000000 | 0x40000000  # mounts, IPC, processes, network
_NEW_USER = 0x10000000
_MS_NOSUID_NODEV, _MS_BIND_REC = 2 | 4, 0x1000 | 0x4000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MOUNT_SETATTR = 442  # the system call, on every architecture
_RECURSIVE, _READ_ONLY, _AT_FDCWD = 0x8000, 1, -100
_MNT_DETACH, _PIVOT_ROOT = 2, {"x86_64": 155, "aarch64": 41, "riscv64": 41}.get(os.uname().machine)
_SYSTEM = ("usr", "bin", "lib", "lib32", "lib64", "etc/ld.so.cache", "nix/store")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LOOK_S = 0.02  # between two looks at the memory
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
#: A user that owns nothing; each launcher takes another, so that their processes are counted apart.
_FIRST_UID, _UIDS = 61_000, 4_000

# Runs `program.py`, and exits with the status that says it has reached its end. That status comes through a pipe which
# is gone before the program starts: it is in no file, argument or variable of the program.
_RUNNER = """
def run(names):
    import os, sys
    status, leave = int(os.read(0, 9)), os._exit
    os.dup2(1, 0)
    with open("program.py", encoding="utf-8") as file:
        code = compile(file.read(), "program.py", "exec")
    sys.argv[:] = [names.setdefault("__file__", "program.py")]
    del names["run"]
    exec(code, names)
    leave(status)
run(globals())
"""

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
    """Enter a root that is read-only, except the working folder, a small file system in memory."""
    _mount(b"none", b"/", None, _MS_REC_PRIVATE)
    folder, root = request["folder"], os.path.join(request["folder"], "root")
    os.mkdir(root)
    _mount(b"tmpfs", root.encode(), b"tmpfs", _MS_NOSUID_NODEV, b"size=1m,mode=0755")
    os.chdir(root)
    os.umask(0o022)
    _show_system()
    for name in ("tmp", "proc"):
        os.mkdir(name)
    inside = folder.lstrip("/")
    for name in ("python", "work"):
        os.makedirs(os.path.join(inside, name))
    _mount(sys.base_prefix.encode(), os.path.join(inside, "python").encode(), None, _MS_BIND_REC)
    _mount(b"proc", b"proc", b"proc", _MS_NOSUID_NODEV)
    _check(_libc.syscall(_PIVOT_ROOT, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir(folder)
    attributes = _MountAttributes(attr_set=_READ_ONLY)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    where, flags = ctypes.c_int(_AT_FDCWD), ctypes.c_uint(_RECURSIVE)
    _check(_libc.syscall(_MOUNT_SETATTR, where, b"/", flags, ctypes.byref(attributes), size), "mount_setattr")
    options = f"size={request['disk_mb']}m,nr_inodes=1024,mode=0700"
    _mount(b"tmpfs", b"work", b"tmpfs", _MS_NOSUID_NODEV, options.encode())
    os.chdir("work")
    with open("program.py", "w", encoding="utf-8") as file:
        file.write(request["source"])
    if uid >= 0:
        os.chown(".", uid, uid)
        os.chmod("program.py", 0o644)


def _show_system() -> None:
    """Show the system's programs, libraries and harmless devices in the current folder."""
    for name in (*_SYSTEM, *(f"dev/{device}" for device in _DEVICES)):
        path = f"/{name}"
        if not os.path.exists(path):
            continue
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        if os.path.islink(path) and "/" not in name:  # as `/lib` is, where `/usr` holds all
            os.symlink(os.readlink(path), name)
            continue
        if os.path.isdir(path):
            os.mkdir(name)
        else:
            open(name, "w").close()
        _mount(path.encode(), name.encode(), None, _MS_BIND_REC)


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
    end = time.monotonic() + request["seconds"]
    while time.monotonic() < end and _memory() <= request["memory_mb"] * 2**20:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == program:
            code = _status(status)
            return 1 if code == UNAVAILABLE else code  # which is for this file alone to say
        if not ended:
            time.sleep(_LOOK_S)
    return 1


def _memory() -> float:
    """Return the bytes that all processes hold together, with the memory files and segments that they share."""
    files: dict[int, int] = {}
    total = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        if process == "1":
            continue
        try:
            with open(f"/proc/{process}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith(("Pss:", "SwapPss:"))) * 1024
            for name in os.listdir(f"/proc/{process}/fd"):
                path = f"/proc/{process}/fd/{name}"
                if os.readlink(path).startswith("/memfd:"):
                    stat = os.stat(path)
                    files[stat.st_ino] = stat.st_blocks * 512
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        except PermissionError:  # it hides what it holds
            return math.inf
    with open("/proc/sysvipc/shm") as segments:
        header, *lines = (line.split() for line in segments)
    return total + sum(files.values()) + sum(int(line[header.index("rss")]) for line in lines)


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
    secret, given = os.pipe()
    os.write(given, str(request["reached_the_end"]).encode())
    os.close(given)
    for stream, file in ((1, null), (2, null), (0, secret)):
        os.dup2(file, stream)
    shown = os.path.join(request["folder"], "python")
    python = os.path.join(shown, interpreter)
    environment = {"LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": os.path.join(shown, "lib")}
    os.execve(python, [python, "-I", "-S", "-B", "-c", _RUNNER], environment)  # the sandboxed program  # nosec B606


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
    number = ctypes.c_ulong(flags)
    _check(_libc.mount(source, target, kind, number, options), f"mount {target.decode()}")


def _status(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


def _check(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
