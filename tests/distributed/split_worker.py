"""An epoch of every replaying method at default settings, with a step split over two processes in several ways.

python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.split_worker OUT METHOD…
"""

import os
import sys
import tempfile

import torch
from accelerate import PartialState

from tests.conftest import pass_over_imports, updates_of_an_epoch

#: What each of two processes does of the 16 task rows of a step: batch × accumulation.
SPLITS = {
    "8 x 1": {"per_device_train_batch_size": 8},
    "4 x 2": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "1 x 8": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
}


def main(out: str, methods: list[str]) -> None:
    pass_over_imports()
    results = {
        (method, name): updates_of_an_epoch(tempfile.mkdtemp(), method, **split)
        for method in methods
        for name, split in SPLITS.items()
    }
    if os.environ["RANK"] == "0":
        torch.save(results, out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
