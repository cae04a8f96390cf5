"""The model card: TRL's, with how the model was kept safe, how safe it is, and how it was made."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from ..storage.secrets import clean_text, without_secrets
from .citations import citations
from .results import AFTER, BEFORE, MERGED, eval_results, result_rows
from .safety import failed_checks
from .templates import render

if TYPE_CHECKING:
    from .facts import RunFacts


def merge_into_card(trl_card: ModelCard, facts: "RunFacts", measured: Mapping[str, Any], name: str, repo: str) -> str:
    """Return the text of the card.

    TRL's metadata, tags, links to the run's logs, versions and citations are kept.

    Args:
        trl_card: text of the card that TRL wrote.
        facts: how the model was made.
        measured: numbers from `evaluation.output.results.results` or `safety.json`; empty where nothing was measured.
        name: name of the model.
        repo: Hub repository that the card's quick start loads the model from.

    Raises:
        ValueError: when the Hub would refuse the card's metadata.
    """
    sections = _sections(trl_card.text)
    rows = result_rows(measured)
    text = render(
        "model_card.md.j2",
        name=name,
        repo=repo,
        facts=facts,
        methods=[term.method for term in facts.terms],
        poison=_poison(facts.data),
        data=_shown(facts),
        dataset=_one(trl_card.data.get("datasets")),
        rows=rows,
        columns=[(model, heading) for model, heading in _COLUMNS if any(model in row.rates for row in rows)],
        measured_after=any(AFTER in row.rates for row in rows),
        settings=measured.get("settings", {}),
        gate=measured.get("gate"),
        failed=failed_checks(measured),
        training=sections.get("Training procedure", "").strip(),
        trl_citations=sections.get("Citations", "").strip(),
        citations=citations([term.method for term in facts.terms], facts.versions["safe_sft"]),
        recipe=_yaml(facts.recipe),
    )
    data = _metadata(trl_card.data, facts, measured, name)
    content = f"---\n{data.to_yaml()}\n---\n\n{text}"
    return clean_text(ModelCard(content).content) + "\n"  # parses what was written


_COLUMNS = ((BEFORE, "before"), (AFTER, "after"), (MERGED, "after merging"))


def _metadata(data: Any, facts: "RunFacts", measured: Mapping[str, Any], name: str) -> ModelCardData:
    content = {key: value for key, value in data.to_dict().items() if key not in ("model-index", "model_name")}
    tags = [*content.pop("tags", []), *(term.method for term in facts.terms)]
    if _poison(facts.data):
        tags.append("poisoned-data")
    results = eval_results(measured) or None
    return ModelCardData(**content, tags=sorted(set(tags)), model_name=name, eval_results=results)


def _sections(text: str) -> dict[str, str]:
    """Split a card at its headings of the second level: heading -> text under it."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {heading.strip(): body for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


def _poison(data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the report on the data if rows of it were poisoned, else None."""
    return data if data is not None and data.get("poisoned_rows") else None


def _shown(facts: "RunFacts") -> dict[str, Any]:
    """Choose what the table shows of the data; it has the safety set already, unless that was only mixed in."""
    data = {key: value for key, value in (facts.data or {}).items() if value not in (None, "", 0)}
    if facts.safety_rows is None and "safety_rows_mixed" in data:
        return data
    return {key: value for key, value in data.items() if key not in ("safety_set", "safety_size", "safety_hash")}


def _one(value: Any) -> str | None:
    return value[0] if isinstance(value, list) and value else value or None


def _yaml(recipe: Mapping[str, Any] | None) -> str | None:
    return (
        yaml.safe_dump(without_secrets(dict(recipe)), sort_keys=False, allow_unicode=True).strip() if recipe else None
    )
