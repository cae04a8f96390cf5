"""Plots runs of `real_model` as safety against learning: attack success, and how much of the task's gain is kept.

    python -m benchmarks.frontier docs/results/smollm2-135m.csv docs/results/smollm2-135m.svg

For each task, the gain kept is the drop of the task loss from the model before (`aligned`) as a share of that of plain
fine-tuning (`none`). Good runs are at the lower right.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RATES = ("asr_advbench", "asr_safety_instructions", "asr_q_harm")


def gain_kept(line: dict[str, str], lines: Sequence[dict[str, str]]) -> float:
    """Return the share of the task's gain that a run keeps: 1 is all that plain fine-tuning gains."""
    same = {other["name"]: float(other["task_loss"]) for other in lines if other["task"] == line["task"]}
    return (same["aligned"] - float(line["task_loss"])) / (same["aligned"] - same["none"])


def worst_rate(line: dict[str, str]) -> float:
    """Return the highest attack success rate of a run over the sets of requests."""
    return max(float(line[rate]) for rate in RATES)


def draw(lines: Sequence[dict[str, str]], path: Path) -> None:
    """Draw one panel for each task."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "safe_sft", "font.size": 9})
    from matplotlib import pyplot

    tasks = list(dict.fromkeys(line["task"] for line in lines))
    figure, panels = pyplot.subplots(
        1, len(tasks), figsize=(4.6 * len(tasks), 4.4), squeeze=False, layout="constrained"
    )
    for axes, task in zip(panels[0], tasks, strict=True):
        _panel(axes, task, [line for line in lines if line["task"] == task])
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _panel(axes: Any, task: str, lines: Sequence[dict[str, str]]) -> None:
    for line in lines:
        x, y = gain_kept(line, lines), worst_rate(line)
        axes.plot(x, y, "s" if line["name"] in ("aligned", "none") else "o", color="#2a7f9e")
        axes.annotate(line["name"], (x, y), (4, 3), textcoords="offset points", fontsize=7)
    axes.axhspan(0, worst_rate(next(line for line in lines if line["name"] == "aligned")) + 0.03, alpha=0.1)
    axes.axvspan(0.95, 1.1, alpha=0.1)
    axes.set_title(task, loc="left")
    axes.set_xlabel("gain kept")
    axes.set_ylabel("worst attack success rate of three sets")
    axes.set_xlim(-0.1, 1.35)
    axes.set_ylim(-0.03, 1.08)
    axes.spines[["top", "right"]].set_visible(False)


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
