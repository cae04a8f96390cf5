"""Answers of the tiny model in one process or in several; the first rank writes them.

python -m torch.distributed.run --nproc_per_node 2 -m tests.evaluation.worker OUT STORE
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from safe_sft.evaluation import measure_asr
from safe_sft.evaluation.answering import AnswerStore
from tests.conftest import make_model, make_tokenizer

PROMPTS = [f"request {'so ' * (i % 5)}number {i}?" for i in range(11)]


def main(out: str, store: str) -> None:
    PartialState(cpu=True)
    report = measure_asr(
        make_model(dtype=torch.bfloat16),  # where another batch would mean another answer
        make_tokenizer(),
        PROMPTS,
        max_new_tokens=8,
        batch_size=2,
        store=AnswerStore(store),
    )
    if PartialState().is_main_process:
        Path(out).write_text(json.dumps([report.answers, report.verdicts, report.cut]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
