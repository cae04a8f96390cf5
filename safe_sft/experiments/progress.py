"""Shows how far an experiment is: a live table in a terminal, one line for each run that ends elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..storage.terminal import console as terminal
from ..storage.terminal import shown, table
from .engine import Progress, State

if TYPE_CHECKING:
    from rich.console import Console

#: Most rows of the live table; those that run or have failed come first.
_ROWS = 20
_STYLES = {State.DONE: "green", State.FAILED: "red", State.RUNNING: "bold"}
_STYLES |= {State.BLOCKED: "yellow", State.STOPPED: "yellow"}
_ENDED = (State.DONE, State.FAILED, State.BLOCKED, State.STOPPED)


class Display:
    """Shows the runs of an engine.

    Args:
        jobs: how many runs are done at a time.
        console: where to; the terminal by default.
    """

    def __init__(self, jobs: int = 1, console: "Console | None" = None):
        self._console = console or terminal()
        self._jobs, self._said = jobs, set[str]()
        self._live: Any = None

    @contextmanager
    def live(self) -> Iterator["Display"]:
        """Keep the table alive in a terminal while this context lasts."""
        if not self._console.is_terminal:
            yield self
            return
        from rich.live import Live

        with Live(console=self._console, refresh_per_second=2) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def __call__(self, runs: Sequence[Progress]) -> None:
        """Show the runs as they stand."""
        if self._live is not None:
            self._live.update(self._table(runs))
            return
        for run in runs:
            key = f"{run.run.digest} {run.state.value}"
            if key not in self._said and run.state not in (State.OPEN, State.ELSEWHERE):
                self._said.add(key)
                self._console.print(shown(self._line(run, runs)), soft_wrap=True)

    def _line(self, run: Progress, runs: Sequence[Progress]) -> str:
        ended = sum(one.state in _ENDED for one in runs)
        text = f"[{ended}/{len(runs)}] {run.run.name}: {run.state.value}"
        if run.state in (State.FAILED, State.BLOCKED, State.STOPPED):
            return f"{text}. {run.error}"
        if run.state is State.RUNNING:
            return text
        left = f"; {duration(seconds)} left" if (seconds := eta(runs, self._jobs)) else ""
        return f"{text} in {duration(run.seconds)}{'' if run.here else ' before, or elsewhere'}{left}"

    def _table(self, runs: Sequence[Progress]) -> Any:
        counts = {state: sum(run.state is state for run in runs) for state in State}
        said = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
        left = eta(runs, self._jobs)
        caption = f"{said}{f'; about {duration(left)} left' if left else ''}"
        rows = table("run", "state", "time", "", title=None, caption=caption)
        order = [State.RUNNING, State.FAILED, State.STOPPED, State.BLOCKED, State.ELSEWHERE, State.OPEN, State.DONE]
        for run in sorted(runs, key=lambda one: order.index(one.state))[:_ROWS]:
            taken = duration(run.seconds) if run.seconds else ""
            rows.add_row(run.run.name, shown(run.state.value, _STYLES.get(run.state, "")), taken, run.error[:100])
        return rows


def eta(runs: Sequence[Progress], jobs: int) -> float:
    """Estimate the seconds that are left, from the mean time of the runs that are done.

    Args:
        runs: all runs.
        jobs: how many are done at a time.

    Returns:
        The estimate; 0 where none is done, or nothing is left.
    """
    taken = [run.seconds for run in runs if run.state is State.DONE and run.seconds]
    left = [run.seconds for run in runs if run.state not in _ENDED]
    if not taken or not left:
        return 0.0
    mean = sum(taken) / len(taken)
    return sum(max(0.0, mean - seconds) for seconds in left) / min(jobs, len(left))


def duration(seconds: float) -> str:
    """Write a time in the unit that reads best."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_end(runs: Sequence[Progress], seconds: float, console: "Console | None" = None) -> None:
    """Print how many runs are there, and why others are not.

    Args:
        runs: all runs, as the engine has left them.
        seconds: how long the command took.
        console: where to; the terminal by default.
    """
    out = console or terminal()
    missing = [run for run in runs if run.state is not State.DONE]
    out.print(f"{len(runs) - len(missing)} of {len(runs)} runs are there ({duration(seconds)}).")
    for run in missing:
        log = f" Log: {run.folder.log}" if run.folder.log.is_file() else ""
        out.print(shown(f"{run.run.name}: {run.state.value}. {run.error}{log}", "yellow"), soft_wrap=True)
