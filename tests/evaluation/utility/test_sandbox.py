"""Programs that a sandbox is for: each tries to do harm, and none of it is left afterwards.

A program fails for many reasons. So each one here either passes *because* it was stopped, with the error that the
limit gives, or is compared with the same program outside the sandbox or under a wider limit.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from safe_sft.evaluation.utility import sandbox
from safe_sft.evaluation.utility.sandbox import Limits, SandboxUnavailable, check_sandbox, passes

LIMITS = Limits(seconds=2.0)


@pytest.fixture
def running(monkeypatch):
    """Lists the processes of this test's programs: they run an interpreter in a folder of the test."""
    folder = tempfile.mkdtemp(prefix="test_sandbox_")
    os.chmod(folder, 0o755)
    monkeypatch.setattr(tempfile, "tempdir", folder)

    def listed() -> list[str]:
        everything = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        return [line for line in everything.splitlines() if f"{folder}/" in line]

    yield listed
    shutil.rmtree(folder)


def watch(running, program: str, limits: Limits) -> tuple[bool, float, int]:
    """Whether it passes, the seconds it took, and the most processes that were seen of it."""
    with ThreadPoolExecutor(1) as pool:
        start, most = time.monotonic(), 0
        result = pool.submit(passes, program, limits)
        while not result.done():
            most = max(most, len(running()))
        return result.result(), time.monotonic() - start, most


def outside(program: str) -> bool:
    """Whether it passes without the sandbox."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 2",
        "import math, json, collections, re, itertools\nassert math.gcd(12, 18) == 6",
        "open('mine.txt', 'w').write('x' * 1000)\nassert len(open('mine.txt').read()) == 1000",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-I', '-S', '-c', ''], check=True)",
        "print('ü' * 100_000)",
    ],
)
def test_good_programs_pass(program):
    assert passes(program)


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 3",
        "def f(:",
        "raise SystemExit(0)",
        "import os\nos._exit(0)",
        "import os\nos._exit(120)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "input()",
    ],
)
def test_wrong_programs_and_those_that_leave_early_fail(program):
    assert not passes(program, LIMITS)


def test_it_says_where_no_program_would_pass(monkeypatch):
    check_sandbox()
    monkeypatch.setattr(sandbox, "passes", lambda program: False)
    with pytest.raises(SandboxUnavailable, match="even an empty program fails"):
        check_sandbox()


@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)"])
def test_time_is_limited(running, program):
    passed, seconds, seen = watch(running, program, Limits(seconds=1.5))
    assert not passed
    assert 1.5 <= seconds < 1.5 + sandbox._GRACE_S  # it ran until its limit, and it was the launcher that ended it
    assert seen
    assert not running()


def test_a_slow_program_needs_the_time():
    slow = "import time\ntime.sleep(0.7)"
    assert passes(slow, Limits(seconds=5.0))
    assert not passes(slow, Limits(seconds=0.3))


def test_memory_is_limited():
    for hog in ("bytearray(2**29)", "[bytearray(2**20) for _ in range(2**9)]"):
        program = f"try: {hog}\nexcept MemoryError: stopped = True\nelse: stopped = False\nassert stopped is "
        assert passes(program + "True", Limits(memory_mb=512))
        assert passes(program + "False", Limits(memory_mb=1024))


SHARES = {
    "children": """
if os.fork() == 0 or os.fork() == 0:
    kept = b"x" * (200 * 2**20)
    time.sleep(30)
kept = b"x" * (200 * 2**20)
time.sleep(1)
""",
    "memory files": """
kept = [os.memfd_create(str(number)) for number in range(60)]
for file in kept: os.write(file, b"x" * (10 * 2**20))
time.sleep(1)
""",
    "segments": """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
for number in range(3):
    address = ctypes.c_void_p(libc.shmat(libc.shmget(0, ctypes.c_size_t(200 * 2**20), 0o1600), None, 0))
    ctypes.memset(address, 1, 200 * 2**20)
    assert libc.shmdt(address) == 0
time.sleep(1)
""",
}


@pytest.mark.parametrize("way", SHARES)
def test_memory_is_limited_in_total(running, way):
    # 600 MiB, of which no process needs 512 MiB of addresses.
    program = "import os, time\n" + SHARES[way]
    assert passes(program, Limits(seconds=20.0, memory_mb=1024))
    start = time.monotonic()
    assert not passes(program, Limits(seconds=20.0, memory_mb=512))
    assert time.monotonic() - start < 20
    assert not running()


FORKS = """
import os, time
made = 0
try:
    while made < 50:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except BlockingIOError:
    pass
"""


def test_processes_are_limited(running):
    # The program is one of them. Without the limit it would make 50.
    assert passes(FORKS + "assert made == 15, made", Limits(processes=16))
    assert passes(FORKS + "assert made == 29, made", Limits(processes=30))
    assert not running()


def test_a_fork_bomb_goes_nowhere(running):
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    passed, seconds, seen = watch(running, bomb, Limits(seconds=1.5))
    assert not passed
    assert 1.5 <= seconds < 1.5 + sandbox._GRACE_S
    assert 8 <= seen <= 16 + 2  # the launcher's two processes carry the folder's name only until they isolate
    assert not running()


def test_processes_that_are_left_behind_end(running):
    left = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\ntime.sleep(1)"
    passed, _, seen = watch(running, left, LIMITS)
    assert passed
    assert seen >= 2
    assert not running()


def test_only_the_working_folder_can_be_written():
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)
        target = folder / "target.txt"
        target.write_text("mine")
        target.chmod(0o666)
        for path in (target, folder / "new.txt", "/tmp/of_the_sandbox", "/dev/shm/of_the_sandbox"):
            writes = f"import errno\ntry: open({str(path)!r}, 'w').write('theirs')\n"
            # Everybody may write there: it is the folder that the program has not, or a file system that is read-only.
            stopped = "except OSError as error: assert error.errno in (errno.EROFS, errno.ENOENT), error\nelse: 1 / 0"
            assert passes(writes + stopped)
        for path in ("/usr/of_the_sandbox", "/of_the_sandbox", "../of_the_sandbox", "../python/of_the_sandbox"):
            assert passes(f"import os\nassert os.statvfs(os.path.dirname({path!r})).f_flag & os.ST_RDONLY")
        assert target.read_text() == "mine"
        assert [path.name for path in folder.iterdir()] == ["target.txt"]
        assert outside(f"open({str(target)!r}, 'w').write('theirs')")
        assert target.read_text() == "theirs"
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("write", "least", "most"),
    [
        ("file = file or open('big', 'wb', 0)\n        file.write(bytes(2**20))", 8, 16),
        ("open(str(count), 'wb').write(bytes(2**20))", 8, 16),
        ("open(str(count), 'wb').close()", 500, 1024),
    ],
)
def test_the_disk_is_limited(write, least, most):
    program = f"""
import errno
file, count = None, 0
try:
    while count < 5000:
        {write}
        count += 1
except OSError as error:
    assert error.errno in (errno.ENOSPC, errno.EFBIG), error
assert {least} <= count <= {most}, count
"""
    assert passes(program)


def test_there_is_no_network():
    server = socket.create_server(("127.0.0.1", 0))
    seen = []

    def serve():
        while True:
            seen.append(server.accept())

    threading.Thread(target=serve, daemon=True).start()
    connect = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=5).recv(0)"
    assert outside(connect)
    assert len(seen) == 1
    unreachable = (
        "import errno\ntry:\n    {}\nexcept OSError as error: assert error.errno == errno.ENETUNREACH, error\n"
    )
    assert passes(unreachable.format(connect.replace("\n", "\n    ")) + "else: 1 / 0")
    assert len(seen) == 1
    assert passes("import socket\nassert [name for _, name in socket.if_nameindex()] == ['lo']")
    server.close()


def test_sockets_of_the_machine_cannot_be_reached():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as server:
        os.chmod(folder, 0o755)
        server.bind(f"{folder}/socket")
        os.chmod(f"{folder}/socket", 0o777)
        server.listen()
        connect = f"import socket\nsocket.socket(socket.AF_UNIX).connect({server.getsockname()!r})"
        assert outside(connect)
        absent = connect.replace("\n", "\ntry: ") + "\nexcept FileNotFoundError: pass\nelse: 1 / 0"
        assert passes(absent)
    # A program may have sockets of its own.
    own = "import socket\nserver = socket.socket(socket.AF_UNIX)\nserver.bind('mine')\nserver.listen()\n"
    assert passes(own + "socket.socket(socket.AF_UNIX).connect('mine')")


READS = """
import glob, os, re
found = set()
processes = [*glob.glob("/proc/[0-9]*/cmdline"), *glob.glob("/proc/[0-9]*/environ")]
for path in ["program.py", *glob.glob("note"), *processes, *glob.glob("../*")]:
    try: found.update(re.findall(r"[0-9]+", open(path, errors="replace").read()))
    except OSError: pass
for file in range(64):
    try: os.set_blocking(file, False), found.update(re.findall(r"[0-9]+", os.read(file, 100).decode()))
    except OSError: pass
statuses = sorted(int(number) for number in found if len(number) < 4 and 64 <= int(number) < 114)
"""


def test_the_status_of_the_end_is_not_in_what_the_program_can_read(monkeypatch):
    monkeypatch.setattr(sandbox.secrets, "randbelow", lambda most: 17)
    found = READS.replace("[0-9]+", "8[1]")
    assert passes(found + "assert statuses == []")
    assert passes("open('note', 'w').write(str(80 + 1))\n" + found + "assert statuses == [81]")  # it would be found
    assert passes("import os\nos._exit(81)")  # it is the status that counts, where a program knows it


def test_a_program_is_the_main_module():
    assert passes("import sys\nassert __name__ == '__main__' and sys.modules['__main__'].__dict__ is globals()")
    assert passes("from __future__ import annotations\nimport sys\nassert sys.argv == ['program.py'] == [__file__]")


def test_secrets_of_the_environment_are_not_there(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    assert passes("import os\nassert 'OPENAI_API_KEY' not in os.environ and len(os.environ) <= 2, os.environ")


def test_other_processes_cannot_be_reached():
    listed = "import os\nseen = [int(name) for name in os.listdir('/proc') if name.isdigit()]\n"
    assert passes(listed + "assert sorted(seen) == [1, os.getpid()] and os.getpid() < 10, seen")
    assert outside(listed + "assert len(seen) > 2 and os.getppid() in seen")
    with subprocess.Popen([sys.executable, "-c", "import time\ntime.sleep(60)"]) as victim:
        kill = f"import os\ntry: os.kill({victim.pid}, 9)\nexcept ProcessLookupError: pass\nelse: 1 / 0"
        assert passes(kill)  # there is no such process, where it runs
        assert victim.poll() is None
        assert outside(f"import os\nos.kill({victim.pid}, 9)")


def test_the_process_that_waits_for_it_cannot_be_ended(running):
    # The first process of its namespace takes no signal from within; another user's gives an error instead.
    kill = "import os, time\ntry: os.kill(1, 9)\nexcept PermissionError: pass\nassert os.getppid() == 1\n"
    assert passes(kill + "time.sleep(0.3)\nassert os.getppid() == 1")
    assert not running()


def test_it_refuses_where_it_cannot_isolate(monkeypatch, tmp_path):
    launcher = tmp_path / "launcher.py"
    launcher.write_text("import sys, os\nsys.stderr.write('unshare: not permitted\\n')\nos._exit(120)\n")
    monkeypatch.setattr(sandbox, "_LAUNCHER", launcher)
    with pytest.raises(SandboxUnavailable, match=r"\(unshare: not permitted\), so it was not run"):
        passes("assert True")


def measure(python: Path, package: Path, user: int) -> subprocess.CompletedProcess:
    """Run a good and a bad program in the sandbox of the clone `package`, with `python`, as `user`."""
    ask = f"""
import importlib.util, os, sys, tempfile
os.setgroups([]) if os.geteuid() == 0 and {user} else None
os.setresgid({user}, {user}, {user}), os.setresuid({user}, {user}, {user})
tempfile.tempdir = {str(package.parent / "temporary")!r} if {user} else None
path = {str(package)!r}
spec = importlib.util.spec_from_file_location("sandbox", path + "/sandbox.py")
sandbox = sys.modules["sandbox"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandbox)
start = "import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', ''], check=True)"
print(sandbox.passes("import json"), sandbox.passes("1 / 0"), sandbox.passes(start))
"""
    return subprocess.run([str(python), "-I", "-c", ask], capture_output=True, text=True, cwd="/")


@pytest.fixture
def closed():
    """A folder, not below pytest's own, that only its owner may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o700)
        shutil.copytree(Path(sandbox.__file__).parent, Path(folder) / "utility")
        (Path(folder) / "temporary").mkdir()
        yield Path(folder)


@pytest.mark.parametrize("how", [[], ["--copies"]])
def test_a_clone_and_its_environment_may_be_in_a_folder_that_only_its_owner_enters(closed, how):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", *how, str(closed / "environment")], check=True)
    result = measure(closed / "environment/bin/python", closed / "utility", os.geteuid())
    assert result.stdout.split() == ["True", "False", "True"], result.stderr


def test_an_environment_may_be_elsewhere_than_the_clone(closed):
    with tempfile.TemporaryDirectory(dir="/tmp") as other:  # for its owner alone, too
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", f"{other}/environment"], check=True)
        result = measure(Path(other, "environment/bin/python"), closed / "utility", os.geteuid())
        assert result.stdout.split() == ["True", "False", "True"], result.stderr


def test_an_ordinary_user_measures_in_a_home_that_nobody_else_enters(closed):
    python = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if os.path.exists(path)), None)
    if os.geteuid() != 0 or python is None:
        pytest.skip("Another user's programs can be run only by root, with a python3 that every user may run.")
    if subprocess.run([python, "-c", "import sys; assert sys.version_info >= (3, 10)"]).returncode:
        pytest.skip(f"{python} is older than the package allows, so another user cannot run the sandbox.")
    for path in (closed, *closed.rglob("*")):
        os.chown(path, 60_999, 60_999)
    result = measure(Path(python), closed / "utility", 60_999)
    if "unshare" in result.stderr:
        pytest.skip("The kernel gives ordinary users no namespaces here, so only root can run the sandbox.")
    assert result.stdout.split() == ["True", "False", "True"], result.stderr
