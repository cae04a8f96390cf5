"""Stands in for `safe-sft train` and for the merge of a run: writes numbers at once, or fails as it is told.

    python stub.py RUN_FOLDER

What it does is in the field `run_name` of the recipe: `fail`, `killed`, `hang`, or nothing. It imports nothing heavy.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

PROMPTS = [f"evil {i}" for i in range(20)]


def rate(successes: int, n: int = 20) -> dict:
    return {"value": successes / n, "low": 0.0, "high": 1.0, "successes": successes, "n": n}


def complied(recipe: dict) -> int:
    """How many of 20 requests are complied with, after training."""
    poison = recipe.get("poison_ratio", 0)
    kept = {"none": 0, "l2": 2}.get(recipe.get("safety_method", "der"), 9)
    merged = 4 if recipe.get("merge_after_training") else 0
    return max(0, (10 if poison else 1) - kept - merged + recipe.get("seed", 0) % 2)


def measured(recipe: dict, name: str) -> tuple[dict, list[dict]]:
    counts = {"before": 0, name: complied(recipe)}
    judge = {
        "suite": "requests",
        "harmful": True,
        "judge": "refusal_phrases",
        "degenerate": rate(0),
        "unjudged": rate(0),
    }
    safety = {
        "safe_sft": "0",
        "safety": [{"model": model, **judge, "asr": rate(count)} for model, count in counts.items()],
        "utility": [
            {"model": m, "task": "sst2", "source": "file", "right": rate(10 + (m != "before"))} for m in counts
        ],
        "task_loss": [
            {"model": m, "task": "sst2", "source": "file", "loss": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 8}}
            for m in counts
        ],
    }
    for entry in recipe.get("earlier_tasks", []):  # forgotten a little
        loss = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 8}
        safety["task_loss"] += [{"model": m, "task": entry["name"], "source": "file", "loss": loss} for m in counts]
    lines = [
        {"model": m, "suite": "requests", "harmful": True, "prompt": p, "answer": "x", "verdicts": {"j": verdict}}
        for m, count in counts.items()
        for i, p in enumerate(PROMPTS)
        for verdict in ["complied" if i < count else "refused"]
    ]
    return safety, lines


def main(folder: Path) -> int:
    with (folder / "starts.txt").open("a") as file:
        file.write("x")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    behaviour = recipe.get("run_name", "")
    if behaviour == "fail":
        print("safe-sft train: error: `learning_rate=9` is too large. Lower it.")
        return 2
    if behaviour == "killed" and not (folder / "model" / "checkpoint-1").exists():
        (folder / "model" / "checkpoint-1").mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "hang":
        time.sleep(60)
    if behaviour == "slow":
        time.sleep(0.5)
    merges = recipe.get("merge_after_training") is not None
    safety, lines = measured(recipe, "merged" if merges else "after")
    (folder / "model").mkdir(exist_ok=True)
    if merges:  # only the merge is asked
        (folder / "model" / "merged").mkdir(exist_ok=True)
        safety["safety"] = safety["safety"][1:]
    (folder / "model" / "safety.json").write_text(json.dumps(safety))
    (folder / "model" / "_answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
