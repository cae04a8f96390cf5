"""At default settings, a step over two processes makes the update of one process, however each splits its share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from safe_sft.methods.registry import METHODS
from tests.conftest import relative_difference, updates_of_an_epoch
from tests.distributed import split_worker

ROOT = Path(__file__).parents[2]
REPLAYING = [*sorted(name for name, method in METHODS.items() if method.needs_replay), "der++", "der+l2"]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> dict:
    """What two processes did, by method and split."""
    out = tmp_path_factory.mktemp("splits") / "two.pt"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", split_worker.__name__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run([sys.executable, *command, str(out), *REPLAYING], check=True, cwd=ROOT, env=environment)
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize("method", REPLAYING)
def test_every_step_of_an_epoch_is_that_of_one_process(tmp_path, two, method):
    """Two steps of 16 task rows, and a last one of 8, which accelerate fills up with others for batches of 8 rows."""
    whole, terms = updates_of_an_epoch(tmp_path, method, per_device_train_batch_size=16)
    for split in split_worker.SPLITS:
        updates, others = two[method, split]
        assert len(updates) == len(whole) == 3
        same = 2 if split == "8 x 1" else 3
        for step in range(same):
            assert relative_difference(updates[step], whole[step]) < 1e-5
        assert others[:same] == pytest.approx(terms[:same], rel=1e-4, abs=1e-9)
