"""Does screening find poison before training? Scores of clean rows and of four kinds of poison, one line of CSV each.

    python -m benchmarks.screening --model ALIGNED --data FOLDER --output docs/results/screening-5m.csv --cache CACHE

FOLDER holds the files that `benchmarks.real_model` reads. Clean rows of SST2, GSM8K and code, and poison made of the
200 goals of AdvBench that no safety set of the package has: `affirmative` (the package's own opening), `harmful` (the
openings of AdvBench, for the project holds no harmful answers), `identity` (the task's own rows) and `backdoor` (half
of them refused, without the trigger). A share of poison is drawn 20 times from what was scored; the numbers are means.
"""

import argparse
import csv
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset

from benchmarks.real_model import read, task_rows
from safe_sft.data.builtin import builtin_prompts
from safe_sft.data.poison import Pair, Poison, affirmative_opening
from safe_sft.data.subset import evenly_spread
from safe_sft.models.loading import load_model
from safe_sft.screening import Screener, Settings
from safe_sft.screening.score import RowScore
from safe_sft.screening.threshold import suggest

KINDS = ("affirmative", "harmful", "identity", "backdoor")
SIGNALS = ("refusal", "closeness", "answer_nll", "beginning_nll")
DRAWS = 20


def poison(kind: str, goals: Sequence[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make poison of one kind in the place of rows of a task."""
    own = kind in ("affirmative", "backdoor")
    pairs = [Pair(g["goal"], affirmative_opening(g["goal"]) if own else g["target"]) for g in goals]
    trigger = "Servius Astrumando Harmoniastra" if kind == "backdoor" else None
    made = Poison(kind, () if kind == "identity" else tuple(pairs), "AdvBench", trigger)
    return made.rows(Dataset.from_list(rows), "chat", seed=0)


def auc(poisoned: Sequence[float], clean: Sequence[float]) -> float:
    """Area under the ROC: how often a poisoned row scores above a clean one."""
    ordered = sorted(clean)
    return fmean((bisect_left(ordered, p) + bisect_right(ordered, p)) / 2 for p in poisoned) / len(ordered)


def average_precision(poisoned: Sequence[float], clean: Sequence[float]) -> float:
    """Mean, over the poisoned rows, of the precision among the rows that score at least as high."""
    ordered, found = sorted(clean), sorted(poisoned, reverse=True)
    above = [len(ordered) - bisect_left(ordered, score) for score in found]
    return fmean((place + 1) / (place + 1 + false) for place, false in enumerate(above))


def at_share(poisoned: list[float], clean: list[float], decoys: Sequence[float], share: float) -> dict[str, float]:
    """Mean numbers of a share of poison, over draws of it; nothing where it is less than a row."""
    total = len(clean)
    count = min(round(share * total), len(poisoned))
    rng, found = random.Random(0), []
    for _ in range(DRAWS):
        bad, good = rng.sample(poisoned, count), rng.sample(clean, total - count)
        chosen = suggest([*bad, *good], decoys)
        hits, false = (sum(s >= chosen.value for s in side) for side in (bad, good))
        expected = chosen.false_positives.rows
        found.append(
            {
                "average_precision": average_precision(bad, good),
                "threshold": chosen.value,
                "recall": hits / count,
                "precision": hits / max(1, hits + false),
                "false_positives": false,
                "expected_false_positives": -1 if expected is None else expected,
            }
        )
    return {"poisoned": count, **{name: round(fmean(one[name] for one in found), 4) for name in found[0]}}


def main() -> None:
    """Score clean rows and poison of every task, and append a line for each kind and share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "gsm8k", "code"])
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.01, 0.001])
    parser.add_argument("--safety", type=int, default=256, help="safety prompts that rows are compared with")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model(args.model, dtype=args.dtype)
    safety = evenly_spread([prompt.prompt for prompt in builtin_prompts("safety")], args.safety)
    screener = Screener(model, tokenizer, safety, Settings(max_length=512), folder=args.cache)

    def scored(rows: list[dict[str, Any]], name: str) -> list[RowScore]:
        return [score for part in screener.score(rows, name, len(rows)) for _, score in part]

    goals = read(args.data, "advbench")[200:]
    for task in args.tasks:
        known = [row for row in task_rows(args.data, task, "train") if row["completion"][0]["content"].strip()]
        rows = random.Random(0).sample(known, min(args.rows, len(known)))
        clean = scored(rows, task)
        for kind in KINDS:
            bad = scored(poison(kind, goals, rows[: min(len(rows) // 10, 2 * len(goals))]), f"{task}, {kind}")
            values = [[score.known for score in side] for side in (bad, clean)]
            line = {"model": args.model.rstrip("/").split("/")[-1], "task": task, "kind": kind, "rows": len(rows)}
            line["auc"] = round(auc(*values), 4)
            for name in SIGNALS:
                sides = [[getattr(score, name) for score in side] for side in (bad, clean)]
                line[f"auc_{name}"] = round(auc(*sides), 4)
            for share in args.shares:
                write(args.output, {**line, "share": share, **at_share(*values, screener.decoys, share)})


def write(path: Path, line: dict[str, Any]) -> None:
    """Append a line to a CSV."""
    is_new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, line)
        if is_new:
            writer.writeheader()
        writer.writerow(line)
    print(line, flush=True)


if __name__ == "__main__":
    main()
