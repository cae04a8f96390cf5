"""A tiny model that refuses, and what a fine-tuning that made it comply has left: an adapter, and a full model."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from safe_sft.data.safety_rows import SafetyRow
from safe_sft.data.tokenization import tokenize_row
from tests.conftest import lora, make_model, make_tokenizer

NO, YES, FINE = "I can't help.", "Sure, ok", "Fine."
#: Requests that are asked, harmful and harmless; others are trained on.
BAD, GOOD = [f"bad {i}" for i in range(30, 50)], [f"good {i}" for i in range(30, 50)]
SEEN = range(24)


def fit(model, rows, steps: int, learning_rate: float) -> None:
    """Train on rows of `(prompt, answer)`, all of them in every step."""
    tokenizer = make_tokenizer()
    found = [tokenize_row(tokenizer, SafetyRow(*row)) for row in rows]
    width = max(len(row.input_ids) for row in found)
    ids = torch.tensor([row.input_ids + [0] * (width - len(row.input_ids)) for row in found])
    labels = torch.tensor([row.labels + [-100] * (width - len(row.labels)) for row in found])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    for _ in range(steps):
        model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def write_rows(path: Path, rows: list[dict]) -> str:
    """Write JSON lines; returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Folder of `aligned`, `adapter`, `full` (the adapter merged), and the files that they are asked and taught."""
    folder = tmp_path_factory.mktemp("repair")
    model = make_model(hidden_size=48, intermediate_size=96, initializer_range=0.08)
    fit(model, [*((f"bad {i}", NO) for i in SEEN), *((f"good {i}", FINE) for i in SEEN)], 60, 5e-3)
    model.save_pretrained(folder / "aligned")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(model, lora())
        tuned.peft_config["default"].base_model_name_or_path = str(folder / "aligned")
        rows = [*((f"bad {i}", YES) for i in SEEN), *((f"task {i}", f"ok {i % 3}") for i in SEEN)]
        fit(tuned, rows, 60, 5e-3)
        tuned.save_pretrained(folder / "adapter")
        tuned.merge_and_unload().save_pretrained(folder / "full")
    for name in ("aligned", "adapter", "full"):
        make_tokenizer().save_pretrained(folder / name)
    write_rows(folder / "bad.jsonl", [{"prompt": prompt} for prompt in BAD])
    write_rows(folder / "good.jsonl", [{"prompt": prompt} for prompt in GOOD])
    write_rows(folder / "safety.jsonl", [{"prompt": f"bad {i}"} for i in SEEN])
    write_rows(folder / "task.jsonl", [{"prompt": f"task {i}", "completion": f"ok {i % 3}"} for i in range(24, 36)])
    return folder
