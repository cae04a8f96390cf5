"""The results of `training_cost`, as a table and as a plot: time and memory relative to plain SFT."""

import os
from collections.abc import Mapping

Results = Mapping[str, Mapping[str, float]]


def markdown(results: Results) -> str:
    """Return a Markdown table with a row for each run.

    Args:
        results: numbers of each run, by its name: `seconds` of a step, `peak` of a step beyond what is `resident`
            between steps (MiB), and counted `operations` of a step; one run is `plain`.
    """
    plain = results["plain"]
    lines = ["| | time | operations | peak | beyond plain, MiB | between steps, MiB |", "|---|---|---|---|---|---|"]
    for name, result in results.items():
        time, peak = result["seconds"] / plain["seconds"], result["peak"] / plain["peak"]
        beyond, resident = result["peak"] - plain["peak"], result["resident"]
        work = result["operations"] / plain["operations"]
        lines.append(f"| {name} | {time:.2f} | {work:.2f} | {peak:.2f} | {beyond:+.0f} | {resident:.0f} |")
    return "\n".join(lines)


def draw(results: Results, path: str | os.PathLike[str]) -> None:
    """Draw a bar for each run, in time and in memory, with the operations as a tick.

    Args:
        results: numbers of each run, as for `markdown`.
        path: the SVG or PNG file to write.
    """
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "safe_sft", "font.size": 9})
    from matplotlib import pyplot

    plain, names = results["plain"], [name for name in results if name != "plain"]
    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axes, quantity in ((time, "seconds"), (memory, "peak")):
        ratios = [results[name][quantity] / plain[quantity] for name in names]
        axes.barh(names, ratios, color=["tab:red" if "naive" in name else "tab:blue" for name in names])
        for name, ratio in zip(names, ratios, strict=True):
            axes.text(0.02, name, f"{ratio:.2f}", color="white", va="center")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlim(0, 1.1 * max(1.0, *ratios))
        axes.spines[["top", "right"]].set_visible(False)
    work = [results[name]["operations"] / plain["operations"] for name in names]
    time.plot(work, names, "k|", markersize=12, label="operations")
    time.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    time.invert_yaxis()
    time.set_xlabel("time of a step / plain SFT")
    memory.set_xlabel("peak memory of a step / plain SFT")
    figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)
    pyplot.close(figure)
