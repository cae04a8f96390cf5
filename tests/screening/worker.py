"""Screens tiny rows in one process or in several; the first rank writes what was found.

python -m torch.distributed.run --nproc_per_node 2 -m tests.screening.worker OUT FOLDER
"""

import json
import sys
from pathlib import Path

from accelerate import PartialState

from safe_sft.screening import screener as module
from tests.screening.helpers import rows, screened


def main(out: str, folder: str) -> None:
    PartialState(cpu=True)
    module.PART_ROWS = 8
    found = screened(Path(folder), (row for row in rows(45)), clean=rows(20))
    if PartialState().is_main_process:
        scored = [[row, score.as_dict()] for row, score in found.spool]
        Path(out).write_text(json.dumps([scored, found.as_dict(), list(found.scores.values)]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
