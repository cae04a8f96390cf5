"""Which files of a folder the evidence holds to, and what a name in it may be."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from ..storage.names import ANSWERS, EVAL_RESULTS, EVIDENCE, MEASURED_ANSWERS, SIGNATURE, left_out

#: What the record is of: it says which files are held to.
TRAINING, EVALUATION, REPAIR, MERGE = KINDS = ("training", "evaluation", "repair", "merge")
#: Folders in that of the evidence: of what a model was made of, and of evaluations that were added to it.
INPUTS, EVALUATIONS = f"{EVIDENCE}/inputs", f"{EVIDENCE}/evaluations"
#: Not held to, of the files of a model that a push would upload: logs, which go on.
_NOT_HELD = ("runs/*", SIGNATURE)
#: What an evaluation writes; its folder may hold anything else.
_OF_EVALUATION = (ANSWERS, "results.json", "report.html", "*.svg", f"{EVAL_RESULTS}/*", f"{EVIDENCE}/*")
#: Texts that a person may add or change after a run: they change nothing that a model does.
_TEXTS = ("*.md", "LICENSE*", "NOTICE*")


class Found(NamedTuple):
    """What is in a folder.

    Attributes:
        files: paths of the files that are held to, in the folder, with `/`.
        strange: paths of links, pipes and other things that are no files, with a word for what they are.
    """

    files: frozenset[str]
    strange: dict[str, str]


def is_held(path: str, kind: str) -> bool:
    """Return whether the evidence holds to a file.

    Args:
        path: path of the file in the folder, with `/`; that of a folder ends with one.
        kind: one of `KINDS`.
    """
    if kind == EVALUATION:
        at_top = "/" not in path
        return any(
            fnmatchcase(path, pattern) or pattern.partition("/")[0] == path.rstrip("/")
            for pattern in _OF_EVALUATION
            if "/" in pattern or at_top
        )
    if path == MEASURED_ANSWERS or ("/" not in path and path.endswith(".py")):  # code may be run, whatever its name
        return True
    return not (left_out(path) or any(fnmatchcase(path, name) for name in _NOT_HELD))


def stays(path: str) -> bool:
    """Return whether a file that is held to stays where it was written, so that a copy from the Hub lacks it."""
    return left_out(path)


def is_text(path: str) -> bool:
    """Return whether a file is a text that a person may add or change."""
    return "/" not in path and any(fnmatchcase(path, pattern) for pattern in _TEXTS)


def look(folder: Path, kind: str) -> Found:
    """List a folder without following a link.

    Args:
        folder: the folder.
        kind: one of `KINDS`.
    """
    files, strange = set(), {}
    for path, what in _entries(folder, "", kind):
        if what is None:
            files.add(path)
        else:
            strange[path] = what
    return Found(frozenset(files), strange)


def _entries(folder: Path, at: str, kind: str) -> Iterator[tuple[str, str | None]]:
    waiting = [at]
    while waiting:
        at = waiting.pop()
        with os.scandir(folder / at) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = at + entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if not is_held(path + "/" * is_folder, kind):
                    continue
                if is_folder:
                    waiting.append(path + "/")
                elif entry.is_symlink():
                    yield path, "link"
                else:
                    yield path, None if entry.is_file(follow_symlinks=False) else "pipe, a socket or a device"


def path_fault(path: str) -> str | None:
    """Say what is wrong with a path that a file names as one of its folder; None where nothing is."""
    parts = path.split("/")
    if not path or path.startswith(("/", "\\", "~")) or path[1:2] == ":":
        return "is no path in the folder"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of the folder"
    return "contains a character that no path has" if "\0" in path else None
