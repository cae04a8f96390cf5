"""What an experiment would run: what is shared, and what `safe-sft plan` says that each run takes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..planning import GPUS, Plan
from ..planning.configs import UnknownShape
from ..planning.report import size
from ..storage.terminal import console, shown, table
from .folder import RunFolder
from .grid import Experiment
from .progress import duration
from .runs import Run
from .shared import shared_work

#: GPUs whose hours are shown: one of 24 GB and one of 80 GB.
_SHOWN = ("RTX4090", "A100-80GB")
#: Fields that change no plan.
_SEEDS = ("seed", "data_seed", "poison_ratio", "poison_kind", "poison_dataset", "poison_trigger", "safety_weight")
#: What names a model.
_MODEL = ("model_name_or_path", "model_revision")

#: A field that counts only beside the importance of the stage before, which is not there yet.
_CARRIED = "importance_decay"

Planner = Callable[[dict[str, Any]], Plan]


class Planned(NamedTuple):
    """A run, and what it takes.

    Attributes:
        run: the run.
        plan: what training takes; None for a merge, and where it is not known.
        why: why it is not known; empty where it is.
    """

    run: Run
    plan: Plan | None = None
    why: str = ""


def plan_runs(runs: Sequence[Run], planner: Planner) -> list[Planned]:
    """Plan each run that trains; those that differ in what changes no plan share one.

    Args:
        runs: the runs.
        planner: plans the run of a recipe.
    """
    known: dict[Any, Planned] = {}
    planned = []
    for run in runs:
        if run.after is not None:
            planned.append(Planned(run))
            continue
        model = tuple(run.recipe.get(name) for name in _MODEL)
        key = repr(sorted((name, repr(value)) for name, value in run.recipe.items() if name not in _SEEDS))
        found = known.get(model) or known.get(key)
        if found is None:
            try:
                found = Planned(run, planner({k: v for k, v in run.recipe.items() if k != _CARRIED}))
            except (OSError, ValueError) as error:  # a model that is not on this machine
                found = Planned(run, None, " ".join(str(error).split()))
                if isinstance(error, UnknownShape):
                    known[model] = found  # the Hub is not asked again
            known[key] = found
        planned.append(found._replace(run=run))
    return planned


def print_dry_run(experiment: Experiment, planned: Sequence[Planned], root: Path) -> None:
    """Print every run, what is there already, and what the others take.

    Args:
        experiment: the experiment.
        planned: its runs, with their plans.
        root: its folder.
    """
    out, shared = console(), shared_work(one.run for one in planned)
    rows = table("run", "there", "memory", *(f"hours, {name}" for name in _SHOWN), "shared", title=None)
    for one in planned:
        run, plan = one.run, one.plan
        there = "yes" if RunFolder(root, run).done() else "failed" if RunFolder(root, run).error() else ""
        shares = [other.what for other in shared if run.digest in other.digests and len(other.digests) > 1]
        hours = [_hours(plan.hours(GPUS[name])) if plan and _fits(plan, name) else "" for name in _SHOWN]
        if plan:
            hours = [text if _fits(plan, name) else "too small" for text, name in zip(hours, _SHOWN, strict=True)]
        memory = size(plan.device_bytes) if plan else "not known" if one.why else "merges"
        rows.add_row(run.name, there, memory, *hours, ", ".join([*_origin(run), *shares]))
    out.print(rows)
    trained = [one for one in planned if one.run.after is None]
    cells = len(experiment.cells)
    out.print(
        f"{cells} cells: {len(trained)} runs that train, {len(planned) - len(trained)} that merge what these train."
    )
    for what in dict.fromkeys(one.what for one in shared):
        groups = [one.digests for one in shared if one.what == what]
        users = sum(map(len, groups))
        if users > len(groups):
            out.print(f"Shared: {what}, made {len(groups)} times for {users} runs.")
    for name in _SHOWN:
        total = [one.plan.hours(GPUS[name]) for one in trained if one.plan is not None and _fits(one.plan, name)]
        if total and len(total) == len(trained) and None not in total:
            seconds = 3600 * sum(hours for hours in total if hours is not None)
            out.print(f"Training on one {name}: {duration(seconds)} in all, estimated; measuring is not counted.")
    for why in dict.fromkeys(one.why for one in planned if one.why):
        out.print(shown(f"Not known: {why}", "yellow"), soft_wrap=True)


def _fits(plan: Plan, name: str) -> bool:
    return GPUS[name].fits(plan.device_bytes)


def _hours(hours: float | None) -> str:
    return "not known" if hours is None else f"{hours:.2f}"


def _origin(run: Run) -> list[str]:
    """Say what a run starts from, and whether it fills several cells."""
    said = [f"{len(run.cells)} cells"] if len(run.cells) > 1 else []
    if run.after is not None:
        return [f"trained by: {run.after.name}"]
    return said if run.start is None else [*said, f"goes on from: {run.start.name} (anchor: {run.anchor})"]
