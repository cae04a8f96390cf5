"""Loads by name what models are asked: suites of requests under attacks, and tasks with known answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from .suites.attacks import attack_suite
from .suites.published import load_suites
from .suites.suite import Suite, SuiteUnavailable, file_suite
from .utility.harness import HarnessTask
from .utility.scored_tasks import UtilityTask, utility_task


@dataclass(frozen=True)
class Asked:
    """What models are asked.

    Attributes:
        suites: suites of requests, each once for every attack.
        tasks: questions with known answers.
        unavailable: why a suite or a task could not be loaded; one sentence each.
    """

    suites: tuple[Suite, ...]
    tasks: tuple[UtilityTask | HarnessTask, ...]
    unavailable: tuple[str, ...]


def read_asked(
    suites: Sequence[str] = (),
    file: str | None = None,
    tasks: Sequence[str] = (),
    *,
    attacks: Sequence[str] = ("none",),
    limit: int | None = None,
    prompt: str = "prompt",
    allow_code_execution: bool = False,
) -> Asked:
    """Load suites and tasks by name.

    Args:
        suites: names or files of suites; the built-in ones if neither these nor `file` are given.
        file: one more file, or data set of the Hub, of harmful requests.
        tasks: names of tasks.
        attacks: names of attacks; each is tried on every suite.
        limit: most prompts of each suite and task.
        prompt: column that holds the request, in files.
        allow_code_execution: whether programs that models write may be run.

    Raises:
        SuiteUnavailable: when nothing could be loaded.
        ValueError: when a name is unknown, or a file cannot be used.
    """
    names = suites or ([] if file else ["builtin-harmful", "builtin-harmless"])
    loaded, unavailable = load_suites(names, attacks=attacks, limit=limit, prompt=prompt)
    if file:
        parts = file_suite(file, prompt=prompt).split()
        loaded += [attack_suite(part.subset(limit), attack) for part in parts for attack in attacks]
    scored = []
    for name in tasks:
        try:
            scored.append(utility_task(name, limit, allow_code_execution=allow_code_execution))
        except SuiteUnavailable as error:
            unavailable.append(str(error))
    _require_apart([*loaded, *scored])
    if not loaded and not scored:
        raise SuiteUnavailable(" ".join(["Nothing could be measured.", *unavailable]))
    return Asked(tuple(loaded), tuple(scored), tuple(unavailable))


def _require_apart(asked: Sequence[Suite | UtilityTask | HarnessTask]) -> None:
    """Refuse two suites, or two tasks, of one name, under which a report would show one of them, or both as one.

    Raises:
        ValueError: naming it.
    """
    names = [one.name for one in asked]
    for one in asked:
        if names.count(one.name) > 1:
            raise ValueError(
                f"'{one.name}' is asked {names.count(one.name)} times: what is measured is told apart by its name, "
                "which a file has from its file name. Give each once, and files names of their own."
            )
