"""The form of the table of bad inputs, and the good inputs that each row of it spoils in one place."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from peft import get_peft_model

from tests.conftest import lora, make_model, make_tokenizer, safety_rows, task_rows

#: Value of a field that the recipe is to lack.
ABSENT = "(absent)"
TRAIN = "train --config {here}/recipe.yaml"


class Bad(NamedTuple):
    """One bad input, and what is said of it.

    Attributes:
        id: what is wrong, in words.
        words: the command line; `{good}` is the folder of good inputs, and `{here}` one of this row alone.
        names: what the message must hold: the bad value, or the file or row that has it.
        remedy: a word of what to do instead, which the message must hold.
        files: files that are written to `{here}`: bytes, text, or rows for a .jsonl.
        fields: fields of the recipe that differ from the good one.
        spoil: damages what lies in `{here}`.
    """

    id: str
    words: str
    names: str
    remedy: str
    files: Mapping[str, Any] = {}
    fields: Mapping[str, Any] = {}
    spoil: Callable[[Path], None] | None = None


class BadCall(NamedTuple):
    """One wrong use from Python.

    Attributes:
        id: what is wrong, in words.
        call: does it, with the folder of good inputs and one of its own.
        names: what the message must hold: the bad value, or the row that has it.
        remedy: a word of what to do instead, which the message must hold.
    """

    id: str
    call: Callable[[Path, Path], Any]
    names: str
    remedy: str


def with_fields(rows: Sequence[tuple[Mapping[str, Any], str, str]], words: str = TRAIN) -> list[Bad]:
    """Make rows of the table from fields of a recipe, what the message names, and its remedy."""
    return [
        Bad(" ".join(f"{k}={str(v)[:24]}" for k, v in fields.items()), words, names, remedy, fields=fields)
        for fields, names, remedy in rows
    ]


def write(path: Path, content: Any) -> None:
    """Write bytes, text or, as JSON lines, rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "\n".join(map(json.dumps, content)) + "\n"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def make_good_inputs(folder: Path) -> Path:
    """Write a model, an adapter, rows and requests that every command takes."""
    make_model().save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    shutil.copytree(folder / "model", folder / "tuned")
    adapted = get_peft_model(make_model(), lora())
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "model")
    adapted.save_pretrained(folder / "adapter")
    write(folder / "task.jsonl", list(task_rows()))
    write(folder / "safety.jsonl", safety_rows())
    write(folder / "prompts.jsonl", [{"prompt": f"evil {i}"} for i in range(3)])
    write(folder / "gsm8k.jsonl", [{"question": f"{i} + 1?", "answer": f"#### {i + 1}"} for i in range(4)])
    return folder


def good_recipe(good: Path, here: Path) -> dict[str, Any]:
    """Return a recipe that trains."""
    return {
        "model_name_or_path": f"{good}/model",
        "dataset_name": f"{good}/task.jsonl",
        "safety_dataset_name": f"{good}/safety.jsonl",
        "safety_eval": False,
        "output_dir": f"{here}/out",
        "safety_method": "der",
        "use_peft": True,
        "lora_r": 4,
        "lora_target_modules": "all-linear",
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "gradient_checkpointing": False,
    }


def prepare(row: Bad, good: Path, here: Path) -> list[str]:
    """Write what a row needs; returns its words."""
    for name, content in row.files.items():
        write(here / name, content)
    if "{here}/model" in row.words or any("{here}/model" in str(value) for value in row.fields.values()):
        shutil.copytree(good / "model", here / "model", dirs_exist_ok=True)
    if "{here}/adapter" in row.words or any("{here}/adapter" in str(value) for value in row.fields.values()):
        shutil.copytree(good / "adapter", here / "adapter", dirs_exist_ok=True)
    if row.spoil is not None:
        row.spoil(here)

    def placed(value: Any) -> Any:
        return value.replace("{here}", str(here)).replace("{good}", str(good)) if isinstance(value, str) else value

    if "recipe.yaml" not in row.files:
        recipe = {**good_recipe(good, here), **{name: placed(value) for name, value in row.fields.items()}}
        kept = {name: value for name, value in recipe.items() if value is not ABSENT}
        write(here / "recipe.yaml", yaml.safe_dump(kept))
    return [placed(word) for word in row.words.split()]
