"""What an evaluation can be held to: its bounds before any answer, and every number with what it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger

from ...evidence import EVALUATION, EvidenceError, Record
from ...evidence.digests import Digests, folder_weights, package_digest
from ...evidence.inputs import origin_of
from ...evidence.measured import measured_models, measured_rates
from ...evidence.origin import Origin
from ...evidence.plain import portable
from ...evidence.record import MEASURED, RUN, has_record
from ...evidence.strict import text_digest
from ...version import __version__
from ..answering import AnswerStore
from ..asked import Asked
from ..evaluate import Evaluation, ModelSpec, Settings
from ..gate import Bounds, Check
from ..judges.refusal_phrases import RefusalPhrases
from ..suites.suite import Suite
from .results import results

logger = get_logger(__name__)

#: What a bound is compared with.
_COMPARED = {"max_unusable": "the share of answers that say nothing or have no verdict"}
_END = "the unfavourable end of the 95 % interval"


class EvaluationEvidence:
    """The evidence of `safe-sft evaluate`, in its output folder; it goes on from that of the models, if they have any.

    Args:
        folder: the output folder.
        models: the models.
        bounds: the bounds of the gate.
        asked: what the models are asked.
        judges: names of the judges.
        settings: how the models are run.
    """

    def __init__(
        self,
        folder: str | Path,
        models: Sequence[ModelSpec],
        bounds: Bounds,
        asked: Asked,
        judges: Sequence[str],
        settings: Settings,
    ):
        self._record, self._models = Record(folder, EVALUATION), models
        self._statement = statement(
            gate_decisions(bounds, "whether a model may ship: the exit status of `safe-sft evaluate`"),
            asked.suites,
            asked.tasks,
            named_judges(judges),
            settings,
        )

    def begin(self, store: AnswerStore) -> None:
        """Write the bounds, before any model answers.

        Args:
            store: the answers that are there already.
        """
        origins = [found for spec in self._models if (found := _origin(spec)) is not None]
        self._record.state(self._statement, answers=store.count, origins=origins)

    def seal(self, evaluation: Evaluation, checks: Sequence[Check]) -> None:
        """Write what was measured, and the digest of every file that was written.

        Args:
            evaluation: what was measured.
            checks: the checks of the gate.
        """
        measured = results(evaluation, checks)
        run = {"code": {"safe_sft": __version__, "sha256": package_digest()}, "settings": asdict(evaluation.settings)}
        content = measured_content(measured, self._record.statement_digest)
        self._record.seal({RUN: portable(run), MEASURED: content})


def _origin(spec: ModelSpec) -> Origin | None:
    """Return the evidence that a model has; None where it has none, or is not what that says."""
    folder, digests = Path(spec.adapter or spec.path), Digests()
    if not has_record(folder):
        return None
    try:
        found = origin_of(spec.name, spec.name, folder_weights(folder, digests), folder, digests)
    except EvidenceError as error:
        logger.warning(f"{error} It is measured as it is, and this evaluation does not go on from that evidence.")
        return None
    return found if found.head else None


def gate_decisions(bounds: Bounds, decides: str) -> list[dict[str, Any]]:
    """Return what each bound of a gate decides.

    Args:
        bounds: the bounds.
        decides: what the gate decides, in words.
    """
    limits = {name: limit for name, limit in asdict(bounds).items() if limit is not None}
    if bounds.max_asr is None and bounds.max_asr_increase is None:
        limits.pop("max_unusable")
    return [
        {"decides": decides, "by": "gate", "bound": name, "limit": limit, "compares": _COMPARED.get(name, _END)}
        for name, limit in limits.items()
    ]


def statement(
    decisions: Sequence[Mapping[str, Any]],
    suites: Sequence[Suite],
    tasks: Sequence[Any],
    judges: Sequence[Mapping[str, Any]],
    settings: Settings,
) -> dict[str, Any]:
    """Return what decides about a model, and with what it is measured.

    Args:
        decisions: the bounds, and what each decides.
        suites: the requests.
        tasks: the tasks with known answers.
        judges: name, and revision where it is known, of each judge.
        settings: how the models are run.
    """
    return {
        "decisions": list(decisions),
        "suites": [
            {
                "name": suite.name,
                "source": suite.source,
                "revision": suite.revision,
                "harmful": suite.harmful,
                "n": len(suite.cases),
                "sha256": text_digest([asdict(case) for case in suite.cases]),
            }
            for suite in suites
        ],
        "tasks": [{"name": task.name, "n": len(getattr(task, "cases", ())) or None} for task in tasks],
        "judges": list(judges),
        "answers": {
            "max_new_tokens": settings.max_new_tokens,
            "chat_template_kwargs": settings.chat_template_kwargs,
            "decoding": "greedy",
        },
    }


def measured_content(measured: Mapping[str, Any], statement_digest: str) -> dict[str, Any]:
    """Return what was measured, as evidence.

    Args:
        measured: numbers from `results`.
        statement_digest: SHA-256 of the statement that was written before.
    """
    return {
        "statement": statement_digest,
        "models": portable(measured_models(measured)),
        "rates": measured_rates(measured),
        "gate": portable(measured.get("gate")),
        "unavailable": portable(measured.get("unavailable", [])),
    }


def phrases_judge() -> dict[str, Any]:
    """Return name and revision of the judge that `safe-sft train` uses."""
    judge = RefusalPhrases()
    return {"name": judge.name, "revision": judge.revision}


def named_judges(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return name and, where it is known before, revision of judges.

    Args:
        names: their names.
    """
    return [phrases_judge() if name == RefusalPhrases.name else {"name": name} for name in names]
