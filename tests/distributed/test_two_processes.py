"""Two gloo processes make the same updates as one with the same total batch: replicated (DDP) and sharded (FSDP2).

With FSDP2 also over 4-bit weights, which are then sharded themselves.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from safe_sft.methods.registry import METHODS
from tests.conftest import relative_difference
from tests.distributed import worker

ROOT = Path(__file__).parents[2]
#: With 3 rows to replay in a step of two micro-steps, one process has none in the last; with 1, in the whole step.
UNEVEN = ["der+er:0.375", "der:0.125"]
#: Methods whose safety gradient opposes the step's, with other terms and with a process that replays nothing.
PROJECTED = ["agem!", "safegrad!", "agem+l2!", "agem:0.125!"]
METHODS_TO_RUN = [*sorted(METHODS), "der+er+l2", "der=auto", *UNEVEN, *PROJECTED]
#: Relative difference of updates that is rounding.
TOLERANCE = {"ddp": 1e-5, "fsdp2": 1e-4, "fsdp2-nf4": 1e-4}
#: Layers of which each process has a part.
SHARDED = {"ddp": None, "fsdp2": "Linear", "fsdp2-nf4": "Linear4bit"}


@pytest.fixture(scope="module", params=list(TOLERANCE))
def one_and_two(request, tmp_path_factory) -> tuple[str, dict, dict]:
    """The mode, and what one process and two of it did."""
    mode, folder = request.param, tmp_path_factory.mktemp(request.param)
    kind = mode.replace("fsdp2", "ddp")
    alone = tmp_path_factory.getbasetemp() / f"{kind}.pt"  # which is the same for DDP and FSDP2
    if not alone.exists():
        worker.main(kind, str(alone), METHODS_TO_RUN)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", worker.__name__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    arguments = [mode, str(folder / "two.pt"), *METHODS_TO_RUN]
    subprocess.run([sys.executable, *command, *arguments], check=True, cwd=ROOT, env=environment)
    one, two = (torch.load(path, weights_only=True) for path in (alone, folder / "two.pt"))
    return mode, one, two


@pytest.mark.parametrize("method", METHODS_TO_RUN)
def test_two_processes_equal_one(one_and_two, method):
    mode, one, two = one_and_two
    assert one[method]["sharded"] == []
    assert (SHARDED[mode] in two[method]["sharded"]) == (mode != "ddp")
    assert relative_difference(two[method]["update"], one[method]["update"]) < TOLERANCE[mode]
    assert two[method]["safety_loss"] == pytest.approx(one[method]["safety_loss"], rel=1e-4)
    if mode == "ddp":  # shards of gradients are not compared
        assert two[method]["safety/share"] == pytest.approx(one[method]["safety/share"], rel=1e-3)


def test_a_weight_that_follows_its_term_is_the_same_on_every_rank(one_and_two):
    _, one, two = one_and_two
    weights = two["der=auto"]["weight"]
    assert weights == pytest.approx(one["der=auto"]["weight"], rel=1e-4)
    assert weights[1] != weights[0] != METHODS["der"].default_weight


@pytest.mark.parametrize("method", PROJECTED)
def test_a_step_is_projected_over_all_ranks(one_and_two, method):
    _, one, two = one_and_two
    assert one[method]["projected"] == two[method]["projected"]
    assert one[method]["projected"][0] == 1.0
    assert two[method]["cosine"] == pytest.approx(one[method]["cosine"], abs=1e-4)
