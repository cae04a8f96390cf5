"""A command that is told to stop says in one line how to go on, and has the shell's status of that signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerCallback

from safe_sft.cli.command import command
from safe_sft.cli.main import main
from safe_sft.trainer.callbacks import MethodsCallback
from safe_sft.trainer.checkpoints import newest_checkpoint
from safe_sft.trainer.signals import Stopped
from tests.cli.test_exits import folder, line_of  # noqa: F401
from tests.conftest import assert_same, make_trainer, trained_weights

BOTH = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """A shell lets what it starts in the background ignore SIGINT, and so this process may."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def sends(monkeypatch, number, step, times=1):
    """Let this process get a signal in the given optimizer step."""
    own = MethodsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return own(self, args, state, control, **kwargs)

    monkeypatch.setattr(MethodsCallback, "on_step_end", on_step_end)


def stopped_train(folder, capsys, *words):  # noqa: F811
    with pytest.raises(SystemExit) as stopped:
        main(["train", *line_of("train", folder, ["--safety_eval", "false", *words])])
    *_, line = capsys.readouterr().err.splitlines()
    return stopped.value.code, line


@pytest.mark.parametrize(("number", "status"), BOTH)
def test_training_says_how_to_go_on(folder, capsys, monkeypatch, number, status):  # noqa: F811
    out = str(folder / f"stopped-{status}")
    sends(monkeypatch, number, 2)
    name = signal.Signals(number).name
    words = ["--output_dir", out, "--save_strategy", "steps", "--save_steps", "1"]
    code, line = stopped_train(folder, capsys, *words)
    assert code == status
    assert line == (
        f"safe-sft train: stopped by {name}. Go on from '{out}/checkpoint-1' with the same command and "
        "`--resume_from_checkpoint true`."
    )
    code, line = stopped_train(folder, capsys, "--output_dir", f"{out}-none", "--save_strategy", "no")
    assert code == status
    assert f"There is no checkpoint in '{out}-none': start again." in line
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("number", "status"), BOTH)
def test_a_checkpoint_is_saved_where_asked(folder, capsys, monkeypatch, number, status):  # noqa: F811
    out = str(folder / f"saved-{status}")
    sends(monkeypatch, number, 2)
    words = ["--output_dir", out, "--save_strategy", "no", "--save_on_signal", "true"]
    code, line = stopped_train(folder, capsys, *words)
    assert code == status
    assert f"Go on from '{out}/checkpoint-2'" in line
    monkeypatch.undo()
    words = ["--output_dir", out, "--resume_from_checkpoint", "true"]
    assert main(["train", *line_of("train", folder, ["--safety_eval", "false", *words])]) == 0


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch):
    whole = make_trainer(tmp_path / "whole", max_steps=3, save_strategy="no")
    whole.train()
    with monkeypatch.context() as patch:
        sends(patch, signal.SIGTERM, 2)
        with pytest.raises(Stopped) as stopped:
            make_trainer(tmp_path / "parts", max_steps=3, save_strategy="no", save_on_signal=True).train()
    assert stopped.value.signal == signal.SIGTERM
    assert newest_checkpoint(str(tmp_path / "parts")) == str(tmp_path / "parts" / "checkpoint-2")
    rest = make_trainer(tmp_path / "parts", max_steps=3)
    rest.train(resume_from_checkpoint=True)
    assert_same(trained_weights(rest), trained_weights(whole))


ONE_OF_TWO = """
import os, signal, sys
from pathlib import Path
from safe_sft.trainer.callbacks import MethodsCallback
from safe_sft.trainer.signals import Stopped
from tests.conftest import make_trainer

def on_step_end(self, args, state, control, **_):
    if state.global_step == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)

MethodsCallback.on_step_end = on_step_end
try:
    make_trainer(Path(sys.argv[1]), max_steps=4, save_strategy="no", save_on_signal=True).train()
except Stopped as error:
    print(f"rank {os.environ['RANK']} stopped by {error.signal}.", flush=True)
"""


def test_all_ranks_stop_after_the_same_step(tmp_path):
    (tmp_path / "one.py").write_text(ONE_OF_TWO)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "one.py", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, *start], capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment
    )
    for rank in (0, 1):
        assert f"rank {rank} stopped by 15." in done.stdout, done.stderr
    assert newest_checkpoint(str(tmp_path / "out")) == str(tmp_path / "out" / "checkpoint-2")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {p.name for p in (tmp_path / "out" / "checkpoint-2").iterdir()}


def test_a_second_signal_ends_it_at_once(tmp_path, monkeypatch):
    sends(monkeypatch, signal.SIGINT, 2, times=2)
    with pytest.raises(KeyboardInterrupt) as stopped:
        make_trainer(tmp_path, max_steps=3, save_strategy="no", save_on_signal=True).train()
    assert not isinstance(stopped.value, Stopped)
    assert newest_checkpoint(str(tmp_path)) is None


def test_handlers_and_callbacks_are_taken_back(tmp_path):
    class Fails(TrainerCallback):
        def on_step_begin(self, *_, **__):
            raise ZeroDivisionError

    before = [signal.getsignal(number) for number, _ in BOTH]
    trainer = make_trainer(tmp_path, save_on_signal=True)
    callbacks = len(trainer.callback_handler.callbacks)
    trainer.train()
    trainer.add_callback(Fails())
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert [signal.getsignal(number) for number, _ in BOTH] == before
    assert len(trainer.callback_handler.callbacks) == callbacks + 1


@pytest.mark.parametrize(("number", "status"), BOTH)
def test_every_command(capsys, number, status):
    def run(_):
        os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as stopped:
        command("demo", list, run, "Start again.")([])
    assert stopped.value.code == status
    assert capsys.readouterr().err == f"safe-sft demo: stopped by {signal.Signals(number).name}. Start again.\n"


def test_a_process_that_is_ended(tmp_path):
    code = (
        "import os, signal, sys\nfrom safe_sft.cli.command import command\n"
        "sys.exit(command('demo', list, lambda _: os.kill(os.getpid(), signal.SIGTERM))([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (143, "safe-sft demo: stopped by SIGTERM.\n")
