"""Two gloo processes find what one finds, each scores its share, and one goes on with what two have left."""

import os
import subprocess
import sys
from pathlib import Path

from safe_sft.screening import screener as module
from tests.screening import worker

ROOT = Path(__file__).parents[2]


def test_two_processes_equal_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_ROWS", module.PART_ROWS)  # which the worker sets
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", worker.__name__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    two, folder = tmp_path / "two.json", tmp_path / "of two"
    subprocess.run([sys.executable, *command, str(two), str(folder)], check=True, cwd=ROOT, env=environment)
    parts = sorted((folder / "cache").glob("part-*.jsonl"))
    assert len(parts) == 6 + 1  # of 45 rows, and of those of the 20 clean ones that are no part of them
    worker.main(str(tmp_path / "one.json"), str(tmp_path / "of one"))
    assert two.read_text() == (tmp_path / "one.json").read_text()
    assert [p.name for p in parts] == sorted(p.name for p in (tmp_path / "of one" / "cache").glob("part-*.jsonl"))
    parts[0].unlink()  # as if the rank that wrote it had been killed before
    worker.main(str(tmp_path / "rest.json"), str(folder))
    assert two.read_text() == (tmp_path / "rest.json").read_text()
