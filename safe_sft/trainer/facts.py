"""Collects what a trainer knows of its run, for the model card."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..hub.facts import CardContent, RunFacts, SafetyRowsFacts, Term
from ..methods import ImportanceAnchor, SafetyMethod
from ..methods.base import WeightAnchor
from ..models.parts import base_model
from ..replay import Teacher
from ..storage.hub import hub_name
from ..version import __version__

_PACKAGES = ("trl", "transformers", "peft", "torch", "datasets")


def run_facts(
    args: SafeSFTConfig,
    terms: Iterable[tuple[SafetyMethod, float]],
    *,
    model: Any,
    safety_rows: SafetyRowsFacts | None,
    teacher: Teacher | None,
    card: CardContent,
) -> RunFacts:
    """Collect the facts of a trainer's run.

    Args:
        args: the trainer's `SafeSFTConfig`.
        terms: the safety methods and their weights.
        model: the model that is trained.
        safety_rows: the safety rows that the methods use; None without them.
        teacher: the methods' teacher; None without one.
        card: what the trainer cannot know itself.
    """
    config = base_model(model).config
    base = hub_name(str(config._name_or_path))
    if safety_rows is not None:
        safety_rows = replace(safety_rows, name=card.safety_set or safety_rows.name)
    terms = list(terms)
    replays = any(method.needs_replay for method, _ in terms)
    return RunFacts(
        method=args.safety_method,
        terms=tuple(_term(method, weight, args) for method, weight in terms),
        base_model=base,
        base_revision=getattr(config, "_commit_hash", None) if base else None,
        safety_rows=safety_rows,
        replay_share=args.replay_ratio / (1 + args.replay_ratio) if replays else None,
        teacher=None if teacher is None else teacher.kind,
        data=card.data,
        recipe=card.recipe,
        versions=_versions(),
    )


def replayed_rows(trainer: Any) -> Sequence[TokenizedRow]:
    """Return the rows that a trainer's methods replay; none where none of them does.

    Args:
        trainer: a `SafeSFTTrainer`.
    """
    return () if trainer._states is None else trainer._states.rows


def aligned_fingerprint(trainer: Any) -> str | None:
    """Return the digest of the aligned model that checkpoints are compared with; None without a safety method.

    Args:
        trainer: a `SafeSFTTrainer`.
    """
    return f"fingerprint:{trainer._origin.aligned}" if trainer._terms else None


def _term(method: SafetyMethod, weight: float, args: SafeSFTConfig) -> Term:
    return Term(
        method.name,
        weight,
        space=method.space if isinstance(method, WeightAnchor) else None,
        estimator=method.estimator(args) if isinstance(method, ImportanceAnchor) else None,
    )


def _versions() -> dict[str, str]:
    found = {"safe_sft": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
