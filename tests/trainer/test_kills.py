"""A run that is killed, wherever it is, and resumed until it ends has the weights of the uninterrupted run."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import assert_same


def start(folder, *kill):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.trainer.kill_worker", str(folder), *map(str, kill)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = start(folder)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "final.safetensors")


def a_kill(seed):
    """A kill after a step, at one of about 160 changes of files, or in one of at least 18 files of tensors."""
    draw = random.Random(seed)
    return [
        ("after-step", draw.randint(1, 5), round(draw.uniform(0, 0.1), 3)),
        ("at-write", draw.randint(1, 150)),
        ("half-written", draw.randint(1, 18)),
    ][seed % 3]


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30))], ids=str
)
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, whole, seed):
    killed = start(tmp_path, *a_kill(seed))
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "final.safetensors").exists()
    resumed = start(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(load_file(tmp_path / "final.safetensors"), whole)
