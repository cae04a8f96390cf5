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
_SIDES = ("aligned", "tuned", "base", "safe")
_NUMBERS = {"weight": "weight t", "threshold": "threshold"}

#: What each merge computes, and what its number says.
FORMULAS = {
    "linear": ("`(1 − t)·aligned + t·tuned`, tensor by tensor", "0 is aligned, 1 is tuned"),
    "slerp": (
        "`(sin((1 − t)·θ)·aligned + sin(t·θ)·tuned) / sin θ`, θ the angle between the two, tensor by tensor",
        "0 is aligned, 1 is tuned",
    ),
    "task_arithmetic": ("`aligned + t·(tuned − aligned)`, tensor by tensor", "0 is aligned, 1 is tuned"),
    "magmax": (
        "`base + t·τ`, τ the change since the base of largest magnitude, weight by weight (arXiv 2407.06322)",
        "0 is the base, 1 takes the changes as they are",
    ),
    "safe_lora": (
        "the update becomes `V·Vᵀ·update / ‖V‖`, V = aligned − base, where the cosine between the two is at most the "
        "threshold (arXiv 2405.16833)",
        "0 keeps nearly all updates, 1 projects all",
    ),
    "safemerge": (
        "`t·tuned + (1 − t)·safe` where the cosine of the tuned update with Safe LoRA's projection of it is below the "
        "threshold, elsewhere tuned (arXiv 2503.17239)",
        "0 is the safe model, 1 is tuned, where they are merged",
    ),
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
    sides = {name: record[name] for name in record if name in _SIDES or name.startswith("tuned_")}
    bases = [side for name, side in sides.items() if name in record["revisions"]]
    relation = {"base_model": bases, "base_model_relation": "merge"} if bases else {}
    auto_class = "AutoModelForCausalLM" if library == "transformers" else "AutoPeftModelForCausalLM"
    kind = "model" if library == "transformers" else "LoRA adapter"
    formula, tells = FORMULAS[record["method"]]
    numbers = {name: record[name] for name in ("weight", "threshold") if name in record}
    lines = [
        *(f"{name.replace('_', ' ')}: {code(side)}" for name, side in sides.items()),
        f"method: {code(record['method'])}, {formula}",
        *(f"{_NUMBERS[name]}: {_number(value)}" for name, value in numbers.items()),
    ]
    lines[len(sides) + 1] += f" ({tells})"
    if "decided" in record:
        lines.append(f"changed by it: {record['decided']['changed']} of {record['decided']['updates']} updates")
    arguments = {name: value for name, value in record.items() if name != "decided"}
    listed = "\n".join(f"- {line}" for line in lines)
    return f"""{metadata({**relation, "library_name": library, "tags": ["merge", "safe-sft"]})}
# {cell(record["tuned"])}, merged with {cell(record["aligned"])}

This {kind} was merged from a fine-tuned model and the aligned model that it came from, so as to win back safety
alignment that fine-tuning cost. It is loaded with `{auto_class}.from_pretrained`.

{listed}

How safe it is has to be measured: `safe-sft merge --sweep` does, for several values. Made with safe_sft; the exact
arguments are in `{MERGE_CONFIG}`:

{fenced(json.dumps(arguments, indent=2, ensure_ascii=False), "json")}
"""


def _number(number: float | dict[str, float]) -> str:
    if not isinstance(number, dict):
        return code(number)
    return ", ".join(f"{code(pattern)}: {code(value)}" for pattern, value in number.items())
