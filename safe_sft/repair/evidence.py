"""What a repair can be held to: the bounds that it must reach, before anything is measured, and what it came to."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..evaluation import Evaluation, ModelSpec
from ..evaluation.output.evidence import gate_decisions, measured_content, named_judges, statement
from ..evaluation.weights import weights_of
from ..evidence import REPAIR, Record
from ..evidence.digests import Digests, folder_weights, package_digest, rows_digest
from ..evidence.inputs import origin_of
from ..evidence.plain import portable
from ..evidence.record import COMPUTE, MEASURED, RUN, STATEMENT
from ..evidence.third import compare_with_third
from ..merging.side import Side
from ..version import __version__
from .exam import Exam
from .inputs import Inputs
from .workbench import Workbench

_NOT_COUNTED = ("the training before the repair", "measuring", "the aligned model's own answers to safety prompts")


class RepairEvidence:
    """The evidence of a repair; it begins beside the rounds, and goes on from that of the two models.

    Args:
        inputs: the model and the aligned one.
        exam: what is asked, and the bounds.
        bench: where the rounds are kept.
    """

    def __init__(self, inputs: Inputs, exam: Exam, bench: Workbench):
        self._inputs, self._exam, self._bench = inputs, exam, bench
        self._digests = Digests()
        self._record = Record(bench.folder, REPAIR, self._digests)
        self._weights = {role: self._weights_of(side) for role, side in self._sides.items()}

    @property
    def _sides(self) -> dict[str, Side]:
        return {"model": self._inputs.model, "aligned": self._inputs.aligned}

    def begin(self) -> str:
        """Write the bounds, before anything is measured or trained.

        Returns:
            What was stated, in a sentence. Bounds that come when answers are there already decide nothing, and it says
            so.

        Raises:
            EvidenceError: when one of the two models is not what its evidence says.
        """
        origins = [
            origin_of(role, side.label, self._weights[role], side.with_weights(), self._digests)
            for role, side in self._sides.items()
        ]
        answers = self._bench.store.count
        content = self._statement()
        self._record.state(content, answers=answers, origins=origins)
        if not self._record.began_late:
            return f"What decides about this repair is stated: {self._record.statement_digest} ({STATEMENT})."
        self._record.state({**content, "decisions": []}, answers=answers, origins=origins)
        return (
            f"These bounds are new, and {answers} answers are there already, so the evidence of this repair will show "
            "no gate. To push what it writes, measure that with `safe-sft evaluate`; or remove "
            f"'{self._bench.folder}', and repair from the beginning."
        )

    def named(self, measured: Evaluation, role: str) -> Evaluation:
        """Say of which weights a measurement of one of the two models is."""
        models = tuple(replace(spec, weights=self._weights[role]) for spec in measured.models)
        return replace(measured, models=models)

    def spec(self, name: str, folder: Path, path: str) -> ModelSpec:
        """Return name and weights of a repaired model.

        Args:
            name: what tables call it.
            folder: where it lies now.
            path: where it is going to lie.
        """
        own = folder_weights(folder, self._digests)
        return ModelSpec(name, path, weights=own if self._base is None else f"{self._base} + {own}")

    def seal(self, folder: Path, measured: Mapping[str, Any], made: Mapping[str, Any], flop: float | None) -> None:
        """Write what the repair did and measured, and the digest of every file.

        Args:
            folder: folder of the repaired model, with all that belongs to it.
            measured: numbers from `evaluation.output.results.results`, with the gate.
            made: how it was repaired, as plain JSON values.
            flop: operations of the training; 0 where nothing was trained, None where they were not counted.
        """
        record = self._record.copied_to(folder)
        late = record.began_late
        weights = {"model": "after", "folder": "", "base": self._base, "sha256": folder_weights(folder, self._digests)}
        content = measured_content({**measured, "gate": None} if late else measured, record.statement_digest)
        record.seal(
            {
                RUN: self._run(made, late),
                COMPUTE: _compute(made, flop),
                MEASURED: {**content, "weights": weights},
            }
        )

    @property
    def _base(self) -> str | None:
        """The weights of the base of an adapter; None for a full model."""
        return self._weights["model"].rpartition(" + ")[0] or None

    def _weights_of(self, side: Side) -> str:
        side.with_weights()
        if not side.is_adapter:
            return weights_of(side.label, None, self._digests) or "unknown"
        return weights_of(side.base.label, side.label, self._digests) or "unknown"

    def _statement(self) -> dict[str, Any]:
        exam = self._exam
        rows = exam.task_rows
        content = statement(
            gate_decisions(exam.bounds, "whether a repair is written, and may be pushed"),
            exam.asked.suites,
            exam.asked.tasks,
            named_judges(exam.judge_names),
            exam.settings,
        )
        if rows is not None:
            content["task_rows"] = {"source": rows.source, "n": len(rows.rows), "sha256": rows_digest(rows.rows)}
        return content

    def _run(self, made: Mapping[str, Any], late: bool) -> dict[str, Any]:
        models = {role: {"name": side.label, "weights": self._weights[role]} for role, side in self._sides.items()}
        bounds = {name: limit for name, limit in asdict(self._exam.bounds).items() if limit is not None}
        content = {
            "repair": dict(made),
            "models": models,
            "bounds": {**bounds, "set_before": not late},
            "code": {"safe_sft": __version__, "sha256": package_digest()},
            "settings": asdict(self._exam.settings),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }
        return dict(portable(content))


def _compute(made: Mapping[str, Any], flop: float | None) -> dict[str, Any]:
    steps = int(made["rounds"] * made["steps"]) if made["way"] == "train" else 0
    notes = ["the operations of each round's first step, as torch counts them, for every step"] * (steps > 0)
    parts = {"forward and backward": flop / steps} if flop is not None and steps else {}
    if flop is None:
        notes = [
            "not counted: torch does not count the operations of quantised weights, or a round is of an older run"
        ]
    return {
        "steps": steps,
        "devices": 1,
        "flop": flop,
        "flop_of_a_step_on_one_device": parts,
        "notes": notes,
        "not_counted": list(_NOT_COUNTED),
        "third": compare_with_third(flop, None),
    }
