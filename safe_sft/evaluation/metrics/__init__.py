"""Metrics for the library `evaluate`, also offline: `evaluate.load(metric_path("gsm8k_exact_match"))`."""

from pathlib import Path

METRICS = ("gsm8k_exact_match", "sst2_accuracy", "code_pass_at_k")


def metric_path(name: str) -> str:
    """Return the folder of a metric, for `evaluate.load`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in METRICS:
        raise ValueError(f"Metric '{name}' is unknown. Choose from: {', '.join(METRICS)}.")
    return str(Path(__file__).parent / name)
