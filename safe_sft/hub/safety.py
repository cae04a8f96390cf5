"""`safety.json`: how safe a model is and how it was made, beside the model, for its card and for whoever pushes it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.json_object import read_json_file
from ..storage.secrets import cleaned, without_secrets
from ..storage.writing import write_json

if TYPE_CHECKING:
    from .facts import RunFacts

SAFETY_FILE = "safety.json"
_REMEDY = "Restore it, or remove it to push without it."


def write_safety(folder: str | os.PathLike[str], measured: Mapping[str, Any], facts: "RunFacts") -> Path:
    """Write the measured numbers and the facts of the run to `folder/safety.json`.

    Args:
        folder: folder of the model.
        measured: numbers from `evaluation.output.results.results`.
        facts: how the model was made.
    """
    path = Path(folder) / SAFETY_FILE
    write_json(path, {**cleaned(measured), "run": without_secrets(facts.as_dict())}, default=str)
    return path


def read_safety(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read what `write_safety` wrote; None where there is no such file.

    Raises:
        ValueError: when the file is not JSON, or holds no mapping.
    """
    path = Path(folder) / SAFETY_FILE
    if not path.is_file():
        return None
    content = read_json_file(path, _REMEDY)
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, not a mapping. {_REMEDY}")
    return content


def failed_checks(measured: Mapping[str, Any]) -> list[str]:
    """Return the bounds of the gate that were not kept, in words; none where there was no gate."""
    return [
        f"{check['bound']} ({check['subject']}): {check['message']}"
        for check in measured.get("gate", {}).get("checks", [])
        if not check["passed"]
    ]
