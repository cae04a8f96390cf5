"""The record of a repair: `safety.json`, and a model card with the numbers before and after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..models.folders import is_adapter
from ..storage.names import CARD
from ..storage.secrets import clean_text, cleaned
from ..storage.writing import write_json, write_text
from .results import AFTER, BEFORE, eval_results, result_rows
from .safety import SAFETY_FILE, failed_checks, read_safety
from .templates import render

_COLUMNS = (("aligned", "aligned model"), (BEFORE, "before the repair"), (AFTER, "after the repair"))
#: What a card says of a model that its repair may have changed.
_OUTDATED = ("model-index", "model_name", "eval_results", "tags", "library_name")


def write_repair(folder: Path, measured: Mapping[str, Any], made: Mapping[str, Any], source: Path, name: str) -> None:
    """Write `safety.json` and the card beside a repaired model.

    Args:
        folder: folder of the repaired model or adapter.
        measured: numbers from `evaluation.output.results.results`, with the gate.
        made: how it was repaired, as plain JSON values.
        source: folder of the model before its repair; what is known of its training is kept.
        name: name of the repaired model.
    """
    run = (read_safety(source) or {}).get("run")
    kept = {} if run is None else {"run": run}
    write_json(folder / SAFETY_FILE, {**cleaned(measured), "repair": cleaned(made), **kept}, default=str)
    write_text(folder / CARD, _card(folder, measured, made, source, name))


def _card(folder: Path, measured: Mapping[str, Any], made: Mapping[str, Any], source: Path, name: str) -> str:
    adapter = is_adapter(folder)
    rows = result_rows(measured)
    text = render(
        "repair_card.md.j2",
        name=name,
        kind="LoRA adapter" if adapter else "model",
        auto_class="AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM",
        made=made,
        rows=rows,
        columns=_COLUMNS,
        measured_after=True,
        settings=measured.get("settings", {}),
        gate=measured.get("gate"),
        failed=failed_checks(measured),
    )
    before = ModelCard.load(source / CARD, ignore_metadata_errors=True).data.to_dict() if _has_card(source) else {}
    outdated = {*_OUTDATED, *(["base_model"] if _is_local(before.get("base_model")) else [])}
    data = ModelCardData(
        **{key: value for key, value in before.items() if key not in outdated},
        library_name="peft" if adapter else "transformers",
        tags=sorted({*_tags(before), "safe-sft"}),
        model_name=name,
        eval_results=eval_results(measured, "before_repair") or None,
    )
    return clean_text(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").content) + "\n"


def _tags(before: Mapping[str, Any]) -> list[str]:
    """Return the tags of a card, without those that PEFT makes of the folder of a base."""
    return [tag for tag in before.get("tags") or [] if not _is_local(tag.removeprefix("base_model:adapter:"))]


def _is_local(base: Any) -> bool:
    """Whether a card names a folder of its author's machine, which the Hub would refuse."""
    return isinstance(base, str) and (base.startswith((".", "/", "~")) or Path(base).is_dir())


def _has_card(folder: Path) -> bool:
    return (folder / CARD).is_file()
