"""Files that a command has kept and reads again, damaged, and files nested so deeply that a library would crash."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from .table import TRAIN, Bad

DEEP = "[" * 100_000 + "]" * 100_000
EVALUATE = "evaluate --model {good}/model --prompts {good}/prompts.jsonl --max_new_tokens 2 --output {here}/evaluation"
EWC = {"safety_method": "ewc", "importance_path": "{here}/i"}
STORE = "evaluation/cache/rank0.jsonl"


def _importance(header: Mapping[str, str]):
    def spoil(here: Path) -> None:
        (here / "i").mkdir()
        save_file({"a": torch.ones(2)}, here / "i" / "importance.safetensors", dict(header))

    return spoil


NESTED = [
    Bad(f"{id}: nested deeply", words, "rows.jsonl", "Write it flat", {"rows.jsonl": f'{{"prompt": {DEEP}}}\n'}, fields)
    for id, words, fields in [
        ("task", TRAIN, {"dataset_name": "{here}/rows.jsonl"}),
        ("safety", TRAIN, {"safety_dataset_name": "{here}/rows.jsonl"}),
        ("evaluate", "evaluate --model {good}/model --prompts {here}/rows.jsonl", {}),
        ("screen", "screen --model {good}/model --input {here}/rows.jsonl --output {here}/out", {}),
        ("poison", "poison --input {here}/rows.jsonl --ratio 0.5 --kind identity --output {here}/out.jsonl", {}),
    ]
] + [
    Bad("a folder: nested deeply", "evaluate --model {good}/model --task_loss {here}/rows", "rows/a.json", "Write it flat", {"rows/a.json": f'[{{"text": {DEEP}}}]'}),
    Bad("task: nested deeply over lines", TRAIN, "line 100", "Write it flat", {"rows.json": '[{"prompt":\n' + "[\n" * 9999}, {"dataset_name": "{here}/rows.json"}),
]  # fmt: skip

KEPT = [
    Bad("answers of another form", EVALUATE, STORE, "Remove it", {STORE: '{"a": "text"}\n'}),
    Bad("answers that are a list", EVALUATE, STORE, "Remove it", {STORE: "[3]\n"}),
    Bad("answers that are not UTF-8", EVALUATE, STORE, "Remove it", {STORE: b"\xff\xff\n"}),
    Bad("an importance without a header", TRAIN, "was not written by", "Compute it", fields=EWC, spoil=_importance({})),
    Bad("an importance with another header", TRAIN, "importance.safetensors' is damaged", "Copy it again", fields=EWC, spoil=_importance({"safe_sft.importance": "[]"})),
    Bad("an importance with half a header", TRAIN, "importance.safetensors' is damaged", "Copy it again", fields=EWC, spoil=_importance({"safe_sft.importance": '{"factor": 1}'})),
    Bad("a teacher's part that is none", TRAIN, "part-00000.safetensors' is damaged", "Delete the folder", {"t/part-00000.safetensors": b"x"}, {"teacher_cache": "{here}/t"}),
    Bad("a teacher's index of numbers", TRAIN, "{here}/t", "delete this one", {"t/index.json": json.dumps({"provenance": {}, "parts": [3]})}, {"teacher_cache": "{here}/t"}),
]  # fmt: skip

ROWS = [*NESTED, *KEPT]
