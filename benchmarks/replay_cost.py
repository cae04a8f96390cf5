"""What replay costs: extra operations of a step, by how many rows are replayed and how much of their answers.

    python -m benchmarks.replay_cost --model FOLDER --data FOLDER --output docs/results/replay-cost.csv \\
        --plot docs/results/replay-cost.svg

The data folder is that of `real_model`. Counts, by `safe-sft plan`, the operations of LoRA steps of 16 rows over one
epoch of 7,000 task rows with the built-in safety prompts, as a share of plain fine-tuning on the same rows. The plot
shows them for `der`.
"""

import argparse
import csv
import random
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from trl import ModelConfig

from safe_sft import SafeSFTConfig
from safe_sft.planning import Rows, make_plan
from safe_sft.planning.data import count_safety_rows, count_task_rows

from .real_model import read, reviews, row

RATIOS = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
LENGTHS = (8, 16, 32, 128)
METHODS = ("er", "der", "der, cached teacher")
EPOCH = 7000


def tasks(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return rows of SST2 and GSM8K, as they are."""
    gsm8k = [row(r["question"], r["answer"]) for r in read(folder, "gsm8k_train")]
    return {"sst2": reviews(read(folder, "sst2_train")), "gsm8k": gsm8k}


def operations(model: str, task: Rows, tokenizer: Any, method: str, **settings: Any) -> float:
    """Return the operations of a mean step."""
    if method.endswith("cached teacher"):
        settings["teacher"] = "cached"
    args = SafeSFTConfig(
        "outputs/plan",
        safety_method=method.partition(",")[0],
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        num_train_epochs=1,
        max_length=512,
        bf16=False,
        use_cpu=True,
        **settings,
    )
    lengths = (args.max_length, args.replay_max_new_tokens, args.replayed_tokens)
    safety = count_safety_rows(None, tokenizer, lengths[0], min(lengths[1], lengths[2] or lengths[1]), lengths[2])
    names = ModelConfig(
        model_name_or_path=model, use_peft=True, lora_r=16, lora_alpha=32, lora_target_modules=["all-linear"]
    )
    return make_plan(args, names, task, safety, utilization=0.35).work.total


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw the extra operations of `der` against the replayed rows, a line for each length of the answers."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "safe_sft", "font.size": 9})
    from matplotlib import pyplot

    names = list(dict.fromkeys(line["task"] for line in lines))
    figure, panels = pyplot.subplots(1, len(names), figsize=(8, 3), sharey=True, layout="constrained")
    for axes, task in zip(panels, names, strict=True):
        for length in LENGTHS:
            own = [
                e for e in lines if (e["task"], e["method"], e["replay_max_answer_tokens"]) == (task, "der", length)
            ]
            axes.plot(
                [e["replay_ratio"] for e in own], [100 * e["extra"] for e in own], "o-", label=f"{length} tokens"
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(RATIOS, [f"1/{round(1 / ratio)}" for ratio in RATIOS])
        axes.set_title(f"{task}, rows of {own[0]['task_tokens']} tokens", loc="left", fontsize=9)
        axes.set_xlabel("replay_ratio")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("extra operations of der, %")
    panels[-1].legend(frameon=False, title="of each answer")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    lines = []
    for name, rows in tasks(args.data).items():
        drawn = random.Random(0).sample(rows, min(EPOCH, len(rows)))
        counted = count_task_rows(drawn, tokenizer, 512)
        task = Rows(EPOCH, counted.tokens, counted.longest, counted.supervised)
        plain = operations(args.model, task, tokenizer, "none")
        for method in METHODS:
            for ratio in RATIOS:
                for length in LENGTHS:
                    fields = {"replay_ratio": ratio, "replay_max_answer_tokens": length}
                    share = operations(args.model, task, tokenizer, method, **fields) / plain - 1
                    lines.append(
                        {"task": name, "task_tokens": round(task.tokens), "method": method, **fields, "extra": share}
                    )
                    print(f"{name:6} {method:20} ratio 1/{round(1 / ratio):<3} {length:4} tokens: +{share:.1%}")
    with args.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    if args.plot:
        draw(lines, args.plot)


if __name__ == "__main__":
    main()
