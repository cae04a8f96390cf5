"""Plots runs of `real_model` as safety against learning: attack success, and how much of the task's gain is kept.

    python -m benchmarks.frontier docs/results/smollm2-135m.csv docs/results/smollm2-135m.svg

For each task, the gain kept is the drop of the task loss from the model before (`aligned`) as a share of that of plain
fine-tuning (`none`), of the same seed where it was run (`none, seed 1`).
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

RATES = ("asr_advbench", "asr_safety_instructions", "asr_q_harm")


def gain_kept(line: dict[str, str], lines: Sequence[dict[str, str]]) -> float:
    """Return the share of the task's gain that a run keeps: 1 is all that plain fine-tuning gains."""
    same = {other["name"]: float(other["task_loss"]) for other in lines if other["task"] == line["task"]}
    seed = line["name"].partition(", seed ")[2]
    plain = same.get(f"none, seed {seed}", same["none"])
    return (same["aligned"] - float(line["task_loss"])) / (same["aligned"] - plain)


def worst_rate(line: dict[str, str]) -> float:
    """Return the highest attack success rate of a run over the sets of requests."""
    return max(float(line[rate]) for rate in RATES)


def draw(lines: Sequence[dict[str, str]], path: Path) -> None:
    """Draw a row for each run: on the left the worst attack success rate, on the right the gain kept."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "safe_sft", "font.size": 9})
    from matplotlib import pyplot

    names = [f"{line['task']}: {line['name']}" for line in lines]
    rates, kept = [worst_rate(line) for line in lines], [gain_kept(line, lines) for line in lines]
    size = (8, 0.8 + 0.24 * len(lines))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    left.plot(rates, names, "o", color="#c44e52")
    right.plot(kept, names, "o", color="#2a7f9e")
    left.invert_yaxis()
    left.set_title("worst ASR of three sets", loc="left", fontsize=9)
    right.set_title("gain kept", loc="left", fontsize=9)
    right.axvline(0.95, color="#999", linewidth=0.8, linestyle=":")
    for axes in (left, right):
        axes.set_xlim(-0.05, 1.15)
        axes.grid(axis="both", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def main() -> None:
    """Draw a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    parser.add_argument("plot", type=Path)
    args = parser.parse_args()
    with args.lines.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    draw(lines, args.plot)
    for line in lines:
        print(
            f"{line['task']:6} {line['name']:40} worst ASR {worst_rate(line):.3f}, kept {gain_kept(line, lines):.0%}"
        )


if __name__ == "__main__":
    main()
