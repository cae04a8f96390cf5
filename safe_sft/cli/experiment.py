"""Run a grid of recipes, each run once, and print the table of safety and utility.

    safe-sft experiment --config recipes/experiments/tiny.yaml [--dry_run]

Runs that are there are not repeated; one that was killed goes on from its last checkpoint. The same command may be
started several times at once, also on several machines that see the folder: they share the work. The status is 0 when
all runs are there, and 1 when some are not.
"""

import argparse
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .command import command, options
from .exits import Status
from .numbers import count
from .unread import Rule

if TYPE_CHECKING:
    from ..experiments.grid import Experiment
    from ..experiments.runs import Run
    from ..planning import Plan

_GO_ON = "The same command goes on where it was."
_MODES = ("cached", "retry", "force")
_RULES = (
    Rule("mode jobs slurm", "runs that are done (no `--dry_run`)", lambda args: not args.dry_run),
    Rule("count", "`--index`", lambda args: args.index is not None),
    Rule("index", "`--count`", lambda args: args.count is not None),
    Rule("index count", "a share that is done here (no `--slurm`)", lambda args: args.slurm is None),
)


def _place(text: str) -> int:
    """Read a whole number of at least 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; imports nothing heavy."""
    add = parser.add_argument
    add("--config", required=True, help="the experiment: a recipe with grid, variants and exclude")
    add("--output", help="folder of runs and results (default: output_dir of the file, else outputs/NAME)")
    add("--quick", action="store_true", help="one point of the grid, every variant, 20 steps each, in OUTPUT/quick")
    add("--dry_run", action="store_true", help="list the runs, what is shared, and what each takes")
    add(
        "--mode",
        default="cached",
        choices=_MODES,
        help="cached: what is neither done nor failed; retry: also what has failed; force: everything anew",
    )
    add("--jobs", type=count, default=1, help="runs at a time, each on a GPU of its own (default: 1)")
    add("--index", type=_place, help="which share of the runs this process does, from 0, as in a job array")
    add("--count", type=count, help="number of shares")
    add("--slurm", metavar="KEY=VALUE,…", help="submit --jobs shares to Slurm: partition=gpu,hours=8 (needs submitit)")


def run(args: argparse.Namespace) -> int:
    """Do the runs and write the results; returns 1 when a run is not there.

    Raises:
        OSError: when a file is missing.
        ValueError: when the experiment, or a recipe of it, cannot be used.
    """
    from ..experiments.grid import read_experiment
    from ..experiments.refusals import folders_of
    from ..experiments.runs import distinct_runs, share_of
    from ..experiments.slurm import slurm_parameters
    from ..storage.folders import require_apart, require_folder

    if args.index is not None and args.index >= args.count:
        raise ValueError(f"`--index {args.index}` is no share of `--count {args.count}`. Count from 0.")
    parameters = None if args.slurm is None else slurm_parameters(args.slurm)
    experiment = read_experiment(args.config, quick=args.quick)
    root = Path(args.output or experiment.output or f"outputs/{experiment.name.removesuffix('-quick')}")
    root = root / "quick" if args.quick else root
    require_folder(root, "--output")
    runs = distinct_runs(experiment.cells)
    _check(runs, args.config)
    require_apart(root, "--output", dict.fromkeys(folder for run in runs for folder in folders_of(run)))
    mine = runs if args.count is None else share_of(runs, args.index, args.count)
    if args.dry_run:
        return _dry_run(experiment, mine, root)
    if parameters is not None:
        return _submit(args, root, parameters)
    return _do(args, experiment, runs, mine, root)


def _check(runs: "list[Run]", path: str) -> None:
    """Check each pair of a variant and values of axes, and each variant as a later stage, before anything is run.

    Settings that do not go together, such as two shares that leave no row of the task, come in pairs.

    Raises:
        ValueError: for the first recipe that cannot be used; the message names the run.
    """
    from ..experiments.refusals import require_models, require_possible
    from ..experiments.stage_recipe import stage_fields

    seen: set[tuple[tuple[str, str], ...]] = set()
    for run in runs:
        parts = [(("variant", cell.variant), *cell.point.items()) for cell in run.cells]
        new = {some for names in parts for size in (1, 2) for some in combinations(names, size)}
        new |= {(("later stage", f"{run.anchor} {cell.variant}"),) for cell in run.cells if run.start is not None}
        if run.cells and new <= seen:
            continue
        seen |= new
        try:
            require_possible(run)
            _arguments(dict(stage_fields(run)))
            require_models(run)
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"The run '{run.name}' of '{path}' cannot be run. {error}") from error


def _arguments(recipe: dict[str, Any]) -> Any:
    """Parse a run's recipe as `safe-sft train` does, but as on a CPU, so that any machine can check."""
    from .recipe_arguments import read_arguments

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(yaml.safe_dump({"output_dir": "outputs", **recipe}), encoding="utf-8")
        try:
            return read_arguments(["--config", str(path), "--use_cpu", "true"], "experiment")
        except ValueError as error:
            raise ValueError(str(error).replace(f"The recipe '{path}'", "Its recipe")) from error


def _plan(recipe: dict[str, Any]) -> "Plan":
    from ..planning import UTILIZATION, make_plan
    from ..run.local_rows import local_rows

    script, args, model, mixture = _arguments(recipe)
    task, safety = local_rows(script, args, model, mixture)
    return make_plan(args, model, task, safety, utilization=UTILIZATION, adapter=script.adapter_name_or_path)


def _dry_run(experiment: "Experiment", runs: "list[Run]", root: Path) -> int:
    from ..experiments.dry_run import plan_runs, print_dry_run

    print_dry_run(experiment, plan_runs(runs, _plan), root)
    return Status.DONE


def _submit(args: argparse.Namespace, root: Path, parameters: dict[str, Any]) -> int:
    from ..experiments.slurm import submit

    whole = root.parent if args.quick else root
    words = ["--config", args.config, "--output", str(whole), "--mode", args.mode]
    words += ["--quick"] if args.quick else []
    jobs = submit(words, root / "slurm", args.jobs, parameters)
    print(f"Submitted {len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs)}. Logs: {root / 'slurm'}")
    print("When they have ended, the same command without --slurm writes the results of all.")
    return Status.DONE


def _do(args: argparse.Namespace, experiment: "Experiment", runs: "list[Run]", mine: "list[Run]", root: Path) -> int:
    from ..experiments.engine import Engine, State
    from ..experiments.output import PAGE, print_tables, write_results
    from ..experiments.progress import Display, print_end

    begun = time.monotonic()
    with Display(args.jobs).live() as display:
        ended = Engine(root, mine, jobs=args.jobs, mode=args.mode, show=display).go()
    made = write_results(experiment, runs, root)
    print_tables(made)
    print_end(ended, time.monotonic() - begun)
    print(f"Report: {root / PAGE}")
    return Status.DONE if all(one.state is State.DONE for one in ended) else Status.NOT_KEPT


main = command("experiment", options("experiment", __doc__, add_arguments, _RULES), run, _GO_ON)

if __name__ == "__main__":
    raise SystemExit(main())
