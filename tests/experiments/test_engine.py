"""Every run is done once, whoever does it, whatever is killed; what is not there is said."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safe_sft.experiments.engine import State
from safe_sft.experiments.folder import DONE, ERROR, RunFolder
from safe_sft.experiments.progress import Display, eta
from tests.experiments.helpers import engine, make, starts

VARIANTS = {
    "none": {"safety_method": "none"},
    "der": {"safety_method": "der"},
    "slerp": {"after": "none", "merge_after_training": "slerp"},
}
ROOT = Path(__file__).parents[2]


def states(runs) -> list[str]:
    return [run.state.value for run in runs]


@pytest.fixture
def runs(tmp_path):
    return make(tmp_path, grid={"seed": [0, 1]}, variants=VARIANTS)[1]


@pytest.mark.parametrize("jobs", [1, 3])
def test_all_runs_are_done_once_and_complete(tmp_path, runs, jobs):
    ended = engine(tmp_path, runs, jobs=jobs).go()
    assert states(ended) == ["done"] * 6
    assert [starts(one) for one in ended] == [1] * 6
    for one in ended:
        done = one.folder.done()
        assert done["digest"] == one.run.digest
        assert done["after"]["asr"]["n"] == 20
        assert done["before"]["asr"]["successes"] == 0  # a merge has it from the run that it starts from
        assert (one.folder.path / "answers.jsonl").is_file()
        assert not (one.folder.model / "merged").exists()
    again = engine(tmp_path, runs).go()
    assert states(again) == ["done"] * 6
    assert [starts(one) for one in again] == [1] * 6


def test_force_does_everything_anew_and_retry_only_what_failed(tmp_path, runs):
    engine(tmp_path, runs).go()
    assert [starts(one) for one in engine(tmp_path, runs, mode="retry").go()] == [1] * 6
    assert [starts(one) for one in engine(tmp_path, runs, mode="force").go()] == [2] * 6


def test_a_failure_keeps_its_error_and_does_not_stop_the_others(tmp_path):
    variants = {**VARIANTS, "none": {"safety_method": "none", "run_name": "fail"}}
    _, runs = make(tmp_path, variants=variants)
    ended = engine(tmp_path, runs).go()
    by_name = {one.run.name: one for one in ended}
    assert {name: one.state for name, one in by_name.items()} == {
        "none": State.FAILED,
        "der": State.DONE,
        "slerp": State.BLOCKED,
    }
    assert by_name["none"].error == "`learning_rate=9` is too large. Lower it."
    assert json.loads((by_name["none"].folder.path / ERROR).read_text())["error"] == by_name["none"].error
    assert by_name["slerp"].error == "none, which it starts from, has failed."
    assert starts(by_name["slerp"]) == 0
    assert starts(engine(tmp_path, runs).go()[0]) == 1  # cached: not tried again
    assert starts(engine(tmp_path, runs, mode="retry").go()[0]) == 2


def test_what_measured_nothing_has_failed(tmp_path):
    _, runs = make(tmp_path, variants={"none": {}})
    does = engine(tmp_path, runs)
    does._command = lambda *_: [sys.executable, "-c", "pass"]
    (one,) = does.go()
    assert one.state is State.FAILED
    assert "it has measured nothing" in one.error


def test_a_killed_run_is_no_failure_and_goes_on(tmp_path):
    _, runs = make(tmp_path, variants={"none": {"run_name": "killed"}})
    (one,) = engine(tmp_path, runs).go()
    assert one.state is State.STOPPED
    assert "SIGKILL" in one.error
    assert not (one.folder.path / ERROR).exists()
    assert (one.folder.model / "checkpoint-1").is_dir()
    (one,) = engine(tmp_path, runs).go()
    assert one.state is State.DONE
    assert starts(one) == 2
    assert not (one.folder.model / "checkpoint-1").exists()


def test_the_newest_checkpoint_is_resumed_from(tmp_path, monkeypatch):
    from safe_sft.experiments.engine import _command

    _, runs = make(tmp_path, variants={"none": {}})
    does = engine(tmp_path, runs)
    (one,) = does.all
    one.folder.hold()
    one.folder.begin(anew=False)
    assert "--resume_from_checkpoint" not in _command(one, does)
    checkpoint = one.folder.model / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 3}')
    assert _command(one, does)[-2:] == ["--resume_from_checkpoint", "true"]
    (one.folder.model / "checkpoint-4").mkdir()  # a kill has left it half written; the run says so, not the engine
    monkeypatch.setattr("safe_sft.trainer.checkpoints.logger", None)
    assert _command(one, does)[-2:] == ["--resume_from_checkpoint", "true"]


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path):
    _, runs = make(tmp_path, variants={"none": {}, "der": {"safety_method": "der", "seed": 3}})
    folder = RunFolder(tmp_path, runs[0])
    lock = folder.hold()
    assert folder.hold() is None
    seen = []

    def show(all_runs):
        seen.append(states(all_runs))
        if seen[-1] == ["running elsewhere", "done"] and (folder.path / DONE).exists() is False:
            folder.finish(
                {"model": "after", "seconds": 7.0, "before": {}, "after": {}, "run": "x", "digest": folder.run.digest}
            )
            os.close(lock)

    ended = engine(tmp_path, runs, show=show).go()
    assert ["running elsewhere", "running"] in seen
    assert states(ended) == ["done", "done"]
    assert (starts(ended[0]), ended[0].seconds) == (0, 7.0)


def test_two_commands_at_once_share_the_work(tmp_path):
    variants = {f"v{i}": {"learning_rate": i + 1, "run_name": "slow"} for i in range(6)}
    _, runs = make(tmp_path, variants=variants)
    script = tmp_path / "other.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom safe_sft.experiments.grid import read_experiment\n"
        "from safe_sft.experiments.runs import distinct_runs\nfrom tests.experiments.helpers import engine\n"
        "runs = distinct_runs(read_experiment(sys.argv[1]).cells)\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "ended = engine(Path(sys.argv[2]), runs).go()\nprint(sum(one.here for one in ended))\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "grid.yaml"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as other:
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        ended = engine(tmp_path, runs).go()
        theirs = int(other.stdout.readline())
    mine = sum(one.here for one in ended)
    assert states(ended) == ["done"] * 6
    assert [starts(one) for one in ended] == [1] * 6
    assert mine + theirs == 6
    assert min(mine, theirs) > 0


def test_the_lock_lasts_as_long_as_the_run_even_if_the_command_is_killed(tmp_path):
    _, runs = make(tmp_path, variants={"none": {"run_name": "hang"}})
    script = tmp_path / "killed.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.experiments.helpers import engine, make\n"
        "_, runs = make(Path(sys.argv[1]), variants={'none': {'run_name': 'hang'}})\n"
        "engine(Path(sys.argv[1]), runs, show=lambda runs: print(runs[0].state.value, flush=True)).go()\n"
    )
    command = [sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = RunFolder(tmp_path, runs[0])
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "running\n"
        child = _child_of(other.pid)
        other.kill()
        other.wait()
    assert folder.hold() is None  # its process still runs
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (lock := folder.hold()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lock is not None
    os.close(lock)


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_a_signal_stops_the_runs_and_leaves_them_open(tmp_path):
    _, runs = make(tmp_path, variants={"none": {"run_name": "hang"}})
    does = engine(tmp_path, runs)

    def show(all_runs):
        if all_runs[0].state is State.RUNNING:
            raise KeyboardInterrupt

    does._show = show
    with pytest.raises(KeyboardInterrupt):
        does.go()
    assert does.all[0].state is State.STOPPED
    assert not (does.all[0].folder.path / ERROR).exists()
    lock = does.all[0].folder.hold()
    assert lock is not None
    os.close(lock)


def test_each_job_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    variants = {f"v{i}": {"learning_rate": i + 1} for i in range(2)}
    _, runs = make(tmp_path, variants=variants)
    does = engine(tmp_path, runs, jobs=2)
    shows = "import os, time; print('sees', os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(1)"
    does._command = lambda *_: [sys.executable, "-c", shows]
    ended = does.go()
    assert sorted(one.folder.log.read_text() for one in ended) == ["sees 4\n", "sees 6\n"]


def test_secrets_reach_the_run_and_no_file(tmp_path):
    token = {"hub_token": "hf_abcdefghijklmnopqrst"}
    _, runs = make(tmp_path, variants={"none": token}, env={"MY_SECRET": "swordfish99"})
    does = engine(tmp_path, runs)
    does._command = lambda *_: [sys.executable, "-c", "import os; print(len(os.environ['MY_SECRET']))"]
    (one,) = does.go()
    assert one.folder.log.read_text() == "11\n"
    texts = [path.read_text() for path in one.folder.path.iterdir() if path.is_file()]
    assert not any("swordfish" in text or "hf_abc" in text for text in texts)


def test_plain_lines_where_there_is_no_terminal(tmp_path, runs, capsys):
    engine(tmp_path, runs[:1], show=Display()).go()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[0/1] none, seed=0: running"
    assert lines[1].startswith("[1/1] none, seed=0: done in ")
    engine(tmp_path, runs[:1], show=Display()).go()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("before, or elsewhere")


def test_a_table_in_a_terminal(tmp_path, runs):
    import io

    from rich.console import Console

    out = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Display(console=out).live() as display:
        engine(tmp_path, runs, show=display).go()
    text = out.file.getvalue()
    assert "6 done" in text
    assert "slerp, seed=1" in text


def test_the_time_left_is_the_mean_of_what_is_done(tmp_path, runs):
    ended = engine(tmp_path, runs).all
    assert eta(ended, 2) == 0
    for one, seconds in zip(ended, [10.0, 30.0], strict=False):
        one.state, one.seconds = State.DONE, seconds
    assert eta(ended, 2) == pytest.approx(4 * 20 / 2)
    ended[2].state, ended[2].seconds = State.RUNNING, 15.0
    assert eta(ended, 1) == pytest.approx(3 * 20 + 5)


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"asr": "x"}'])
def test_damaged_numbers_are_no_numbers(tmp_path, content):
    _, runs = make(tmp_path, variants={"none": {}})
    folder = RunFolder(tmp_path, runs[0])
    folder.path.mkdir(parents=True)
    (folder.path / DONE).write_text(content)
    with pytest.raises(ValueError, match=r"done\.json' is damaged\. Remove it, so that the run is done again"):
        folder.done()
