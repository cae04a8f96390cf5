"""Repaired and merged models with evidence, and evaluations of models, made without a model in a moment."""

import json
from pathlib import Path

from safe_sft.evidence import EVALUATION, MERGE, REPAIR, Record
from safe_sft.evidence.digests import Digests, folder_weights
from safe_sft.evidence.inputs import origin_of
from safe_sft.evidence.record import MEASURED, RUN

from .folders import BOUNDS, answers, clock, measured


def make_weights(folder: Path, content: bytes = b"weights", base: str | None = None) -> Path:
    """A model's folder; an adapter of `base` where one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    if base is None:
        (folder / "model.safetensors").write_bytes(content)
        (folder / "config.json").write_text('{"model_type": "llama"}')
    else:
        (folder / "adapter_model.safetensors").write_bytes(content)
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def weights_of(folder: Path) -> str:
    """Its weights as they stand beside answers: of an adapter, after those of its base."""
    own = str(folder_weights(folder, Digests()))
    if not (folder / "adapter_config.json").is_file():
        return own
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    return f"{folder_weights(Path(base), Digests())} + {own}"


def origin(role: str, folder: Path):
    return origin_of(role, role, weights_of(folder), folder, Digests())


def make_repair(folder: Path, *inputs: Path, passed: bool = True, **start) -> Path:
    """Evidence of a repair in a folder of weights, made of other models."""
    record = Record(folder, REPAIR, clock=clock())
    origins = [origin(f"input_{number}", one) for number, one in enumerate(inputs)]
    record.state({"decisions": BOUNDS, "suites": [{"name": "s", "n": 4}]}, origins=origins, **start)
    weights = weights_of(folder)
    (folder / "_answers.jsonl").write_text(answers(weights))
    check = {"passed": passed, "checks": measured(weights, "", passed=passed)["gate"]["checks"]}
    (folder / "safety.json").write_text(json.dumps({"gate": check, "models": [{"name": "after", "weights": weights}]}))
    content = measured(weights, record.statement_digest, passed=passed)
    base, _, own = weights.rpartition(" + ")
    content["weights"] = {"model": "after", "folder": "", "base": base or None, "sha256": own}
    record.seal({RUN: {"repair": {"way": "merge"}}, MEASURED: content})
    return folder


def make_merge(folder: Path, *inputs: Path) -> Path:
    """Evidence of a merge in a folder of weights."""
    record = Record(folder, MERGE, clock=clock())
    origins = [origin(f"input_{number}", one) for number, one in enumerate(inputs)]
    record.state({"decisions": []}, origins=origins)
    (folder / "merge_config.json").write_text("{}")
    base, _, own = weights_of(folder).rpartition(" + ")
    content = {"statement": record.statement_digest, "models": [], "rates": [], "gate": None, "unavailable": []}
    content["weights"] = {"model": "merged", "folder": "", "base": base or None, "sha256": own}
    record.seal({RUN: {"merge": {"weight": 0.5}}, MEASURED: content})
    return folder


def make_evaluation_of(folder: Path, model: Path, passed: bool = True, weights: str | None = None, **others) -> Path:
    """An evaluation of a model with a gate; `first` is a model that it is compared with."""
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder, EVALUATION, clock=clock())
    if "origins" not in others:
        found = origin("after", model)
        others["origins"] = [found] if found.head else []
    record.state({"decisions": BOUNDS, "suites": [{"name": "s", "n": 4}]}, origins=others["origins"])
    weights = weights or weights_of(model)
    (folder / "answers.jsonl").write_text(answers(weights))
    (folder / "results.json").write_text("{}")
    content = measured(weights, record.statement_digest, passed=passed)
    content["models"] = [*others.get("first", []), {"name": "after", "weights": weights}, *others.get("last", [])]
    record.seal({RUN: {"code": {}}, MEASURED: content})
    return folder
