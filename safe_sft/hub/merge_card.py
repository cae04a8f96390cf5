"""The record of a merge: `merge_config.json`, and a model card."""

import json
from pathlib import Path
from typing import Any

from ..storage.names import CARD
from ..storage.secrets import cleaned
from ..storage.writing import write_json, write_text
from ..version import __version__
from .templates import cell, code, fenced, metadata

MERGE_CONFIG = "merge_config.json"

_FORMULAS = {
    "linear": "`(1 − t)·aligned + t·tuned`, tensor by tensor",
    "slerp": "`(sin((1 − t)·θ)·aligned + sin(t·θ)·tuned) / sin θ`, θ the angle between the two, tensor by tensor",
    "task_arithmetic": "`aligned + t·(tuned − aligned)`, tensor by tensor",
}


def write_record(folder: Path, arguments: dict[str, Any], library: str) -> None:
    """Write how the model was made.

    Args:
        folder: folder of the merged model or adapter.
        arguments: arguments of `merge` as plain JSON values, with the revisions that Hub names stood for.
        library: library that loads the result: `transformers` or `peft`.
    """
    record = {"safe_sft_version": __version__, **cleaned(arguments)}
    write_json(folder / MERGE_CONFIG, record)
    write_text(folder / CARD, _card(record, library))


def _card(record: dict[str, Any], library: str) -> str:
    bases = [record[side] for side in ("aligned", "tuned") if side in record["revisions"]]
    relation = {"base_model": bases, "base_model_relation": "merge"} if bases else {}
    auto_class = "AutoModelForCausalLM" if library == "transformers" else "AutoPeftModelForCausalLM"
    kind = "model" if library == "transformers" else "LoRA adapter"
    return f"""{metadata({**relation, "library_name": library, "tags": ["merge", "safe-sft"]})}
# {cell(record["tuned"])}, merged with {cell(record["aligned"])}

This {kind} lies between a fine-tuned model and the aligned model that it came from, so as to win back safety
alignment that fine-tuning cost. It is loaded with `{auto_class}.from_pretrained`.

- aligned: {code(record["aligned"])}
- tuned: {code(record["tuned"])}
- method: {code(record["method"])}, {_FORMULAS[record["method"]]}
- weight t: {_weight(record["weight"])} (0 is aligned, 1 is tuned)

How safe it is has to be measured: `safe-sft merge --sweep` does, for several weights. Made with safe_sft; the exact
arguments are in `{MERGE_CONFIG}`:

{fenced(json.dumps(record, indent=2, ensure_ascii=False), "json")}
"""


def _weight(weight: float | dict[str, float]) -> str:
    if not isinstance(weight, dict):
        return code(weight)
    return ", ".join(f"{code(pattern)}: {code(value)}" for pattern, value in weight.items())
