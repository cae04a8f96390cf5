"""Experiments over stub runs."""

import sys
from pathlib import Path

import yaml

from safe_sft.experiments.engine import Engine
from safe_sft.experiments.grid import Experiment, read_experiment
from safe_sft.experiments.runs import Run, distinct_runs

STUB = Path(__file__).with_name("stub.py")
BASE = {"model_name_or_path": "nobody/model", "dataset_name": "nobody/task"}


def write(folder: Path, **content) -> Path:
    """Write an experiment's file."""
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({**BASE, **content}, sort_keys=False))
    return path


def make(folder: Path, **content) -> tuple[Experiment, list[Run]]:
    """Read an experiment, and its runs."""
    experiment = read_experiment(write(folder, **content))
    return experiment, distinct_runs(experiment.cells)


def stub_command(progress, engine) -> list[str]:
    """The command line of a stub run."""
    return [sys.executable, str(STUB), str(progress.folder.path)]


def engine(root: Path, runs: list[Run], **options) -> Engine:
    """An engine whose runs are stubs."""
    return Engine(root, runs, command=stub_command, **options)


def starts(progress) -> int:
    """How often a run was started."""
    path = progress.folder.path / "starts.txt"
    return len(path.read_text()) if path.is_file() else 0
