"""`Repair`: measures a model, repairs it by training or merging, and writes the better repair, or nothing."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache

from ..evaluation import Check, Evaluation, ModelSpec, load_model
from ..evaluation.output.results import answer_lines, results
from ..hub.repair_card import write_repair
from ..merging.merge import write_merge
from ..models.loading import load_tokenizer
from ..storage.folders import complete_folder
from ..storage.names import MEASURED_ANSWERS
from ..storage.writing import write_text
from .bisection import METHOD, safe_weight
from .candidates import Candidate, failures
from .evidence import RepairEvidence
from .exam import Exam, joined, kept, renamed
from .inputs import Inputs
from .lessons import Lessons, Taught
from .training import Training
from .workbench import Workbench

WAYS = ("train", "merge")


@dataclass(frozen=True)
class Outcome:
    """How a repair ended.

    Attributes:
        aligned: what was measured of the aligned model.
        before: what was measured of the model that was to be repaired.
        checks: its bounds of safety, before the repair.
        tried: what each way came to; none where nothing had to be done.
    """

    aligned: Evaluation
    before: Evaluation
    checks: tuple[Check, ...]
    tried: tuple[Candidate, ...] = ()

    @property
    def needless(self) -> bool:
        """Whether the model kept all bounds of safety as it was, so that nothing was done."""
        return kept(self.checks)

    @property
    def best(self) -> Candidate | None:
        """The repair that keeps all bounds and costs least utility; None where there is none."""
        best = None
        for one in self.tried:
            if one.refused is None and (best is None or one.costs_less(best)):
                best = one
        return best

    @property
    def evaluation(self) -> Evaluation:
        """All that was measured, side by side: aligned, before, and what each way came to."""
        tried = ((one, one.measured) for one in self.tried)
        after = (renamed(found, ModelSpec(one.way, str(one.folder))) for one, found in tried if found is not None)
        return joined(self.aligned, self.before, *after)


@dataclass(frozen=True)
class Repair:
    """A repair of one model.

    Attributes:
        inputs: the model and the aligned one.
        exam: what is asked, and the bounds.
        lessons: the safety rows.
        training: how a round trains.
        rounds: most rounds of training, at least 1.
        halvings: number of merge weights that are measured.
        say: function that shows a line on what is being done.
    """

    inputs: Inputs
    exam: Exam
    lessons: Lessons
    training: Training = field(default_factory=Training)
    rounds: int = 6
    halvings: int = 5
    say: Callable[[str], None] = print

    def run(self, output: Path, ways: Sequence[str] = WAYS, *, overwrite: bool = False) -> Outcome:
        """Repair, and write the repair that costs least utility to `output`; nothing where none keeps all bounds.

        Args:
            output: folder to write; it appears when it is complete.
            ways: `train`, `merge`, or both.
            overwrite: whether a folder that is not empty may be replaced.

        Raises:
            FileExistsError: when `output` may not be written to.
            LeakError: when a request that is asked is trained on.
            ValueError: when the models do not fit each other, or the safety rows cannot be used.
        """
        self._check(output, ways, overwrite)
        bench = Workbench.open(output, self._settings())
        evidence = RepairEvidence(self.inputs, self.exam, bench)
        self.say(evidence.begin())
        aligned = self.exam.of_folder("aligned", self.inputs.aligned.label, bench.store)
        before = self.exam.of_folder("before", self.inputs.model.label, bench.store)
        aligned, before = evidence.named(aligned, "aligned"), evidence.named(before, "model")
        outcome = Outcome(aligned, before, tuple(self.exam.safety(aligned, before)))
        if outcome.needless:
            bench.remove()
            return outcome
        tried = [self._merged_if_possible(bench, aligned, before, ways)] if "merge" in ways else []
        tried += [self._by_training(bench, aligned, before)] if "train" in ways else []
        outcome = replace(outcome, tried=tuple(tried))
        if outcome.best is not None:
            self._write(outcome, outcome.best, output, overwrite, evidence, bench)
            bench.remove()
        return outcome

    def _check(self, output: Path, ways: Sequence[str], overwrite: bool) -> None:
        if PartialState().num_processes > 1:
            raise ValueError("A repair runs in one process. Start it without `accelerate launch`.")
        self.inputs.check_output(output, overwrite=overwrite)
        if "train" in ways:
            self.inputs.require_trainable()
            self.exam.require_unseen(self.lessons.prompts)

    def _settings(self) -> dict[str, Any]:
        """Return all that the rounds depend on."""
        return {"models": self.inputs.digest(), **self._facts()}

    def _facts(self) -> dict[str, Any]:
        safety = self.lessons.safety
        rows = {"safety_set": safety.name, "safety_rows": len(safety.rows), "safety_rows_digest": safety.digest}
        return {"method": self.lessons.method, **asdict(self.training), **rows}

    def _merged_if_possible(
        self, bench: Workbench, aligned: Evaluation, before: Evaluation, ways: Sequence[str]
    ) -> Candidate:
        """Merge; where the models cannot be merged, say so, and leave it to the other way if there is one."""
        try:
            return self._by_merging(bench, aligned, before)
        except ValueError as error:
            if "train" not in ways:
                raise
            return Candidate("merge", f"It cannot be merged: {error}")

    def _by_merging(self, bench: Workbench, aligned: Evaluation, before: Evaluation) -> Candidate:
        """Merge by the largest weight that keeps safety."""
        if not kept(self.exam.safety(before, aligned)):  # the aligned model on trial, as a merge of weight 0
            return Candidate("merge", "The aligned model itself does not keep the bounds, so no merge with it can.")
        start = time.perf_counter()
        weight = safe_weight(self.inputs, self.exam, aligned, bench.store, self.halvings, self.say)
        clear_device_cache(garbage_collection=True)
        if weight == 0:
            return Candidate("merge", f"No merge weight from {2**-self.halvings:g} on keeps the bounds of safety.")
        folder = bench.merged(weight)
        if not folder.is_dir():
            write_merge(self.inputs.aligned.label, self.inputs.model.label, METHOD, weight, folder)
        found = self._measured("merge", folder, bench, aligned, before)
        self.say(f"Merge of weight {weight:g}: {found.told}")
        made = {"way": "merge", "method": METHOD, "weight": weight, **_seconds(start)}
        why = None if kept(found.checks) else f"Of weight {weight:g}, not all bounds are kept: "
        return replace(found, made=made, refused=why and why + failures(found.checks))

    def _by_training(self, bench: Workbench, aligned: Evaluation, before: Evaluation) -> Candidate:
        """Train round after round until all bounds are kept, or utility falls too far."""
        start, source, taught = time.perf_counter(), self.inputs.model.folder, None
        base = self.inputs.model.base.label if self.inputs.is_adapter else None
        found = Candidate("train", "No round was trained.")
        for number in range(1, self.rounds + 1):
            target = bench.round(number)
            if not bench.is_done(number):
                taught = taught or self._taught()
                trained = self.training.run(source, base, target, taught, self.inputs.tokenizer, number)
                bench.keep_flop(number, trained.flop)
                clear_device_cache(garbage_collection=True)
                self.say(f"Round {number} of at most {self.rounds}: mean loss on safety rows {trained.loss:.3f}")
            found = self._measured("train", target, bench, aligned, before)
            self.say(f"Round {number}: {found.told}")
            made = {"way": "train", "rounds": number, **self._facts(), **_seconds(start)}
            if kept(found.checks):
                return replace(found, made=made)
            why = failures(found.checks)
            assert found.measured is not None
            if not kept(self.exam.utility(before, found.measured)):
                return replace(found, made=made, refused=f"Utility fell below its bound in round {number}: {why}")
            found, source = (
                replace(found, made=made, refused=f"Not all bounds are kept after {number} rounds: {why}"),
                target,
            )
        return found

    def _measured(
        self, way: str, folder: Path, bench: Workbench, aligned: Evaluation, before: Evaluation
    ) -> Candidate:
        """Measure what is in a folder, as it will be shipped."""
        measured = self.exam.of_folder("after", str(folder), bench.store)
        checks = (*self.exam.safety(aligned, measured), *self.exam.utility(before, measured))
        return Candidate(way, folder=folder, measured=measured, checks=checks)

    def _taught(self) -> Taught:
        """Load the aligned model, let it answer the safety rows, and let it go again."""
        settings = self.exam.settings
        model, _ = load_model(self.inputs.aligned.label, None, settings.dtype, settings.trust_remote_code)
        tokenizer = load_tokenizer(self.inputs.tokenizer, trust_remote_code=settings.trust_remote_code)
        taught = self.lessons.learned(model, tokenizer)
        del model
        clear_device_cache(garbage_collection=True)
        return taught

    def _write(
        self,
        outcome: Outcome,
        best: Candidate,
        output: Path,
        overwrite: bool,
        evidence: RepairEvidence,
        bench: Workbench,
    ) -> None:
        """Write a repair under its final name, with its card, numbers, answers and evidence."""
        assert best.folder is not None
        assert best.measured is not None
        after = renamed(best.measured, evidence.spec("after", best.folder, str(output)))
        evaluation = joined(outcome.aligned, outcome.before, after)
        measured = results(evaluation, best.checks)
        others = {one.way: one.refused or one.told for one in outcome.tried if one is not best}
        made = {"model": self.inputs.model.label, "aligned": self.inputs.aligned.label, **best.made, "others": others}
        with complete_folder(output, overwrite=overwrite) as folder:
            shutil.copytree(best.folder, folder, copy_function=_linked, dirs_exist_ok=True)
            write_repair(folder, measured, made, self.inputs.model.folder, output.absolute().name)
            write_text(folder / MEASURED_ANSWERS, "".join(f"{line}\n" for line in answer_lines(evaluation)))
            evidence.seal(folder, measured, made, bench.flop(best.made["rounds"]) if best.way == "train" else 0.0)


def _seconds(start: float) -> dict[str, float]:
    return {"seconds": round(time.perf_counter() - start, 1)}


def _linked(source: str, target: str) -> None:
    """Give a file of a finished round a second name, without a copy where the file system allows it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
