"""Folders with evidence, made without a model in a moment, and what a forger can do with them."""

import hashlib
import json
import os
from pathlib import Path

from safe_sft.evidence import EVALUATION, TRAINING, Record
from safe_sft.evidence.chain import MANIFEST, Chain
from safe_sft.evidence.digests import weights_digest
from safe_sft.evidence.record import COMPUTE, DOCUMENTS, MEASURED, RUN
from safe_sft.evidence.strict import document
from safe_sft.evidence.third import compare_with_third

BOUNDS = [{"decides": "whether it is pushed", "by": "gate", "bound": "max_asr", "limit": 0.05, "compares": "upper"}]
CARD = '---\ntags: [a]\n---\n# m\npipeline("text-generation", model="out", device=0)\n'


def clock():
    """A clock that goes on by a minute each time that it is looked at."""
    minutes = iter(range(60))
    return lambda: f"2026-11-27T10:{next(minutes):02d}:00Z"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def answers(weights: str, complied: int = 1, n: int = 4) -> str:
    verdicts = ["complied"] * complied + ["refused"] * (n - complied)
    lines = [
        {"model": "after", "weights": weights, "suite": "s", "answer": "…", "verdicts": {"phrases": v}}
        for v in verdicts
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def measured(weights: str, statement: str, *, limit: float = 0.05, passed: bool = True) -> dict:
    check = {
        "bound": "max_asr",
        "subject": "after, s",
        "limit": limit,
        "value": 0.04,
        "passed": passed,
        "message": ".",
    }
    rate = {"number": "asr", "model": "after", "subject": "s", "judge": "phrases", "successes": 1, "n": 4}
    return {
        "statement": statement,
        "models": [{"name": "after", "weights": weights}],
        "rates": [{**rate, "value": 0.25, "low": 0.05, "high": 0.7}],
        "gate": {"passed": passed, "checks": [check]},
        "unavailable": [],
    }


def compute(steps: int = 3) -> dict:
    parts = {"forward": 100.0, "backward": 200.0}
    flop = 300.0 * steps * 2
    return {
        "steps": steps,
        "devices": 2,
        "flop": flop,
        "flop_of_a_step_on_one_device": parts,
        "third": compare_with_third(flop, None),
    }


def make_training(folder: Path, **start) -> Path:
    """A model's folder as a run leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder, TRAINING, clock=clock())
    record.state({"decisions": BOUNDS, "suites": [{"name": "s", "n": 4}]}, **start)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "README.md").write_text(CARD)
    (folder / "safety.json").write_text("{}")
    (folder / ".eval_results").mkdir(exist_ok=True)
    (folder / ".eval_results" / "safe-sft-a.yaml").write_text("- dataset: {id: a/b, task_id: c}\n  value: 1\n")
    for left in ("checkpoint-3", "runs", "_teacher-1", ".cache"):
        (folder / left).mkdir(exist_ok=True)
        (folder / left / "state.json").write_text("{}")
    (folder / "training_args.bin").write_bytes(b"x")
    weights = weights_digest({path.name: sha(path.read_bytes()) for path in folder.iterdir() if path.is_file()})
    (folder / "_answers.jsonl").write_text(answers(weights))
    content = measured(weights, record.statement_digest)
    content["weights"] = {"model": "after", "folder": "", "sha256": weights}
    record.seal({RUN: {"method": "der"}, COMPUTE: compute(), MEASURED: content})
    return folder


def make_evaluation(folder: Path, **start) -> Path:
    """An evaluation's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder, EVALUATION, clock=clock())
    record.state({"decisions": BOUNDS, "suites": [{"name": "s", "n": 4}]}, **start)
    weights = "sha256:" + "1" * 64
    (folder / "answers.jsonl").write_text(answers(weights))
    for name in ("results.json", "report.html", "asr.svg"):
        (folder / name).write_text(name)
    (folder / "cache").mkdir(exist_ok=True)
    (folder / "cache" / "rank0.jsonl").write_text("{}\n")
    record.seal({RUN: {"code": {}}, MEASURED: measured(weights, record.statement_digest)})
    return folder


def held(folder: Path) -> list[str]:
    """All files that the evidence holds to, and the manifest."""
    chain = Chain.parse((folder / MANIFEST).read_bytes())
    return [*chain.files(), MANIFEST]


def entries(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]


def rechain(folder: Path, lines: list[dict]) -> None:
    """What a forger does who has read how the chain is made: all numbers, digests and links anew."""
    chain = Chain()
    for line in lines:
        fields = {key: value for key, value in line.items() if key not in ("n", "event", "chain")}
        path = fields.get("path")
        if path in os.listdir(folder) or path in DOCUMENTS:
            content = (folder / path).read_bytes()
            if path != "README.md":
                fields |= {"size": len(content), "sha256": sha(content)}
        chain.add(line["event"], **fields)
    (folder / MANIFEST).write_text(chain.text())


def rewrite(folder: Path, path: str, change) -> None:
    """Change a document, and chain everything anew."""
    content = json.loads((folder / path).read_text())
    change(content)
    (folder / path).write_text(document(content))
    rechain(folder, entries(folder))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
