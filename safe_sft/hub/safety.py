"""`safety.json`: how safe a model is and how it was made, beside the model, for its card and for whoever pushes it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.secrets import cleaned, without_secrets
from ..storage.writing import write_json

if TYPE_CHECKING:
    from .facts import RunFacts

SAFETY_FILE = "safety.json"


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
        ValueError: when the file is not JSON.
    """
    path = Path(folder) / SAFETY_FILE
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"'{path}' is not JSON ({error}). Restore it, or remove it to push without it.") from error
    return content


def failed_checks(measured: Mapping[str, Any]) -> list[str]:
    """Return the bounds of the gate that were not kept, in words; none where there was no gate."""
    return [
        f"{check['bound']} ({check['subject']}): {check['message']}"
        for check in measured.get("gate", {}).get("checks", [])
        if not check["passed"]
    ]
