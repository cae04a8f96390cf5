"""Tasks of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness), where it is installed."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..suites.suite import SuiteUnavailable

# Metrics that say right or wrong of each row, the first that a task has.
_METRICS = ("exact_match", "acc", "acc_norm", "em")


@dataclass(frozen=True)
class HarnessTask:
    """A task of lm-evaluation-harness.

    Attributes:
        name: the harness's name for the task, or a YAML file that describes one.
        limit: most rows that are used, the first ones; None for all.
    """

    name: str
    limit: int | None = None


def harness_task(name: str, limit: int | None = None) -> HarnessTask:
    """Load a task of the harness; its rows are fetched now, so that a missing network is noticed before the run.

    Args:
        name: the harness's name for the task, or a YAML file that describes one.
        limit: most rows that are used; None for all.

    Raises:
        ModuleNotFoundError: when the harness is not installed.
        SuiteUnavailable: when the task's data cannot be reached.
        ValueError: for an unknown task.
    """
    if find_spec("lm_eval") is None:
        raise ModuleNotFoundError(
            f"`lm_eval:{name}` needs lm-evaluation-harness, which is not installed: pip install 'safe_sft[harness]'"
        )
    from lm_eval.tasks import TaskManager

    try:
        TaskManager().load_task_or_group([name])
    except KeyError as error:
        raise ValueError(
            f"lm-evaluation-harness has no task '{name}'. `lm-eval ls tasks` lists what it has; a YAML file works too."
        ) from error
    except Exception as error:  # whatever the task, `datasets` or the network raises; named in what we raise
        raise SuiteUnavailable(
            f"Utility task 'lm_eval:{name}' could not be loaded ({type(error).__name__}: {error}). Check the network."
        ) from error
    return HarnessTask(name, limit)


def run_harness(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, task: HarnessTask, batch_size: int
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Run a task on a loaded model.

    With several processes, each runs the whole task and all take the first one's results: the harness does not
    distribute the rows of a model that is already loaded.

    Args:
        model: the model, on its device.
        tokenizer: the model's tokenizer; its chat template is used where it has one.
        task: the task to run.
        batch_size: rows answered at a time.

    Returns:
        The model's answer to each row, as text, and whether it was right.

    Raises:
        ValueError: when the task does not say right or wrong of each row.
    """
    results = [_run(model, tokenizer, task, batch_size)]
    broadcast_object_list(results)
    return results[0]


def _run(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, task: HarnessTask, batch_size: int
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=[task.name],
        limit=task.limit,
        log_samples=True,
        apply_chat_template=bool(tokenizer.chat_template),
        bootstrap_iters=0,
    )
    # A task may read its answers through several filters; one of them is enough, the first.
    rows = [row for samples in found["samples"].values() for row in samples]
    rows = [row for row in rows if row["filter"] == rows[0]["filter"]]
    metric = next((name for name in _METRICS if rows and name in rows[0]), None)
    if metric is None:
        raise ValueError(
            f"`lm_eval:{task.name}` says right or wrong of no row. Choose a task that measures one of: "
            f"{', '.join(_METRICS)}."
        )
    return tuple(str(row["filtered_resps"]) for row in rows), tuple(float(row[metric]) == 1.0 for row in rows)
