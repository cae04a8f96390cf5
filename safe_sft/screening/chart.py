"""The histogram of a screening, as SVG."""

import io

from ..evaluation.output.charts import drawing
from .screening import Screening

#: Scores below this quantile are drawn in the first bar, so that a few of them do not squeeze the others.
_FIRST_BAR = 0.005
_BARS = 60


def histogram(screening: Screening) -> str:
    """Draw the scores of the rows, on a logarithmic axis, with those of the decoys and the threshold."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    scores = sorted(screening.scores.known)
    if not scores:
        return ""
    value = screening.threshold.value
    low = min(scores[int(_FIRST_BAR * len(scores))], value)
    high = max(scores[-1], *screening.decoys, value)
    width = (high - low) / _BARS or 1.0
    edges = [low + bar * width for bar in range(_BARS + 1)]
    with drawing():
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.hist([max(score, low) for score in scores], edges, color="#2a7f9e", label="rows", log=True)
        axes.hist(screening.decoys, edges, histtype="step", color="#c44e52", label="decoys (made-up poison)", log=True)
        axes.axvline(value, color="#20262e", linestyle="--", linewidth=1, label="threshold")
        axes.set_xlabel("score: how much speaks for a row that trains a refusal away, nats")
        axes.set_ylabel("rows")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
