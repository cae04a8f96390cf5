"""Hands the runs of an experiment to Slurm, through submitit: one job array, each task of which does its share."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Key of `--slurm` -> the parameter of submitit that it sets, and how its text is read.
_PARAMETERS: dict[str, tuple[str, Any]] = {
    "partition": ("slurm_partition", str),
    "hours": ("timeout_min", lambda text: round(60 * float(text))),
    "gpus": ("gpus_per_node", int),
    "cpus": ("cpus_per_task", int),
    "memory": ("mem_gb", float),
    "account": ("slurm_account", str),
    "qos": ("slurm_qos", str),
    "constraint": ("slurm_constraint", str),
}
_DEFAULTS = {"partition": "", "gpus": "1", "hours": "24"}


def slurm_parameters(text: str) -> dict[str, Any]:
    """Read `partition=gpu,hours=8` into the parameters of submitit's executor.

    Args:
        text: pairs of a key and a value, separated by commas.

    Raises:
        ValueError: for an unknown key or a value that is none; the message names it.
    """
    found: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or key not in _PARAMETERS:
            raise ValueError(
                f"`--slurm {text}` has {pair!r}. Write pairs such as `partition=gpu,hours=8`; the keys are: "
                f"{', '.join(_PARAMETERS)}."
            )
        if key in found:
            raise ValueError(f"`--slurm {text}` gives `{key}` twice. Keep one.")
        found[key] = value.strip()
    return {_PARAMETERS[key][0]: _value(key, value, text) for key, value in {**_DEFAULTS, **found}.items() if value}


def _value(key: str, value: str, text: str) -> Any:
    read = _PARAMETERS[key][1]
    try:
        number = read(value)
        if read is not str and not number > 0:
            raise ValueError
    except ValueError as error:
        raise ValueError(f"`--slurm {text}` has `{key}={value}`. Give a number above 0.") from error
    return number


class Share:
    """One task of the job array: the command for one share of the runs.

    A task that is pre-empted, or reaches its time, is put back into the queue, and goes on from its last checkpoint.

    Args:
        words: the words of the command after `safe-sft experiment`, without the share.
        index: which share, from 0.
        count: number of shares.
    """

    def __init__(self, words: Sequence[str], index: int, count: int):
        self.words = [*words, "--index", str(index), "--count", str(count)]

    def __call__(self) -> int:
        """Do the share; returns the command's exit status."""
        return subprocess.call([sys.executable, "-m", "safe_sft.cli.experiment", *self.words])  # no shell  # nosec B603

    def checkpoint(self) -> Any:
        """Return what submitit is to put into the queue again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    words: Sequence[str], folder: Path, count: int, parameters: Mapping[str, Any], cluster: str | None = None
) -> list[Any]:
    """Submit a job array whose tasks together do all runs.

    Args:
        words: the words of the command after `safe-sft experiment`, without `--slurm`.
        folder: folder for submitit's files and logs, which every node sees.
        count: number of tasks.
        parameters: from `slurm_parameters`.
        cluster: submitit's executor: `slurm`, `local` or `debug`; found out by default.

    Returns:
        submitit's jobs.

    Raises:
        ModuleNotFoundError: when submitit is not installed.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("`--slurm` needs submitit. Run `pip install safe_sft[slurm]`.") from error
    executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
    executor.update_parameters(name="safe-sft", **parameters)
    with executor.batch():
        return [executor.submit(Share(words, index, count)) for index in range(count)]
