"""`.eval_results/*.yaml`: the measured numbers in the form that the Hub shows on a model's page and in leaderboards.

A number is of a data set of the Hub, so that what was measured with built-in requests or with files is not among them.
https://huggingface.co/docs/hub/eval-results
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries

from ..data.tasks import TASKS
from ..storage.hub import hub_name
from ..storage.names import EVAL_RESULTS
from ..storage.secrets import clean_text
from ..storage.writing import write_text
from ..storage.yaml_files import read_yaml

#: What the names of our files begin with; others in the folder are not ours.
_OURS = "safe-sft-"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NUMBERS = {
    "asr": "attack success rate, lower is better",
    "over_refusal": "over-refusal rate, lower is better",
    "right": "share of right answers",
}


def write_eval_results(folder: str | os.PathLike[str], measured: Mapping[str, Any], model: str) -> list[Path]:
    """Write the numbers of one model, one file a data set, in place of those that were written before.

    Args:
        folder: folder of the model.
        measured: numbers from `evaluation.output.results.results`.
        model: name of the model among them.
    """
    place = Path(folder) / EVAL_RESULTS
    files: dict[str, list[EvalResultEntry]] = {}
    for entry in result_entries(measured, model):
        slug = re.sub(r"[^a-z0-9]+", "-", entry.dataset_id.lower()).strip("-")
        files.setdefault(f"{_OURS}{slug}.yaml", []).append(entry)
    for old in place.glob(f"{_OURS}*.yaml"):
        if old.name not in files:
            old.unlink()
    for name, entries in files.items():
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        assert parse_eval_result_entries(yaml.safe_load(text)) == entries, "the Hub reads what was written"
        write_text(place / name, text)
    return [place / name for name in files]


def result_entries(measured: Mapping[str, Any], model: str) -> list[EvalResultEntry]:
    """Make an entry of every rate that was measured with a data set of the Hub.

    Args:
        measured: numbers from `evaluation.output.results.results`.
        model: name of the model.
    """
    settings = measured.get("settings", {})
    entries = []
    for number, task, entry, revision in _rates(measured, model):
        rate, dataset = entry[number], hub_name(entry["source"])
        if dataset is None or dataset.count("/") != 1 or rate["value"] is None or not rate["n"]:
            continue
        length = f", at most {settings['max_new_tokens']} new tokens" if number != "right" and settings else ""
        notes = [
            _NUMBERS[number],
            f"95 % interval {rate['low']:.3f} to {rate['high']:.3f}, n={rate['n']}",
            *([f"judge {entry['judge']}"] if "judge" in entry else []),
            f"greedy{length}",
            "measured with safe_sft",
        ]
        value = EvalResultEntry(dataset, task, round(rate["value"], 6), notes=clean_text("; ".join(notes)))
        pinned = revision is not None and _COMMIT.fullmatch(revision)
        entries.append(replace(value, dataset_revision=revision) if pinned else value)
    return entries


def check_eval_results(folder: str | os.PathLike[str]) -> None:
    """Check that the Hub can read the results of a model's folder.

    Args:
        folder: folder of the model.

    Raises:
        ValueError: for the first file that it cannot read.
    """
    for path in sorted((Path(folder) / EVAL_RESULTS).glob("*.yaml")):
        try:
            read = read_yaml(path)
            if not isinstance(read, list):
                raise TypeError("it is no list")
            parse_eval_result_entries(read)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(
                f"'{path}' does not hold results as the Hub reads them ({error}). Correct it, or remove it; see "
                "https://huggingface.co/docs/hub/eval-results."
            ) from error


def _rates(measured: Mapping[str, Any], model: str) -> Iterator[tuple[str, str, Mapping[str, Any], str | None]]:
    """Yield which number it is, its task, its entry, and the revision of the data set."""
    for entry in measured.get("safety", ()):
        for number in ("asr", "over_refusal"):
            if entry["model"] == model and number in entry:
                yield number, entry["suite"], entry, entry.get("revision")
    for entry in measured.get("utility", ()):
        if entry["model"] == model:
            known = TASKS.get(entry["task"])
            source = known.source if known is not None and known.source.location == entry["source"] else None
            yield "right", entry["task"], entry, source.revision if source else None
