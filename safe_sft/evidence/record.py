"""The record of a run or an evaluation, as it is written: the bounds first, the files and their digests last."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..storage.names import EVIDENCE
from ..storage.writing import write_text
from .chain import FILE, GATE_IGNORED, INPUT, MANIFEST, RESUMED, SEALED, STARTED, STATED, Chain
from .digests import Digests
from .origin import Origin
from .plain import portable
from .scope import EVALUATION, EVALUATIONS, INPUTS, look, stays
from .strict import EvidenceError, Mismatch, document, parse_json, read_bytes

#: What the files look like; another number would mean another form.
FORMAT = "safe_sft evidence 1"
STATEMENT = f"{EVIDENCE}/statement.json"
RUN, COMPUTE, MEASURED = (f"{EVIDENCE}/{name}.json" for name in ("run", "compute", "measured"))
#: All files of the folder of evidence, but for the manifest.
DOCUMENTS = (STATEMENT, RUN, COMPUTE, MEASURED)


def now() -> str:
    """Return the time, in UTC and whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Record:
    """The evidence of one folder. In a distributed run, only the first process has one.

    Args:
        folder: folder of the model, or of the evaluation.
        kind: one of `scope.KINDS`.
        digests: digests of files that are known already.
        clock: function that returns the time.
    """

    def __init__(
        self,
        folder: str | Path,
        kind: str,
        digests: Digests | None = None,
        clock: Callable[[], str] = now,
    ):
        self.folder, self.kind = Path(folder), kind
        self.digests = digests or Digests()
        self._clock = clock
        self.chain = Chain()

    def state(
        self,
        content: Mapping[str, Any],
        *,
        step: int = 0,
        answers: int = 0,
        resumes: bool = False,
        origins: Sequence[Origin] = (),
    ) -> None:
        """Write the statement, before anything is trained or measured.

        Where the folder holds the same statement already, that one stays, and the start is added to it: its time is
        that of the first start. Where it holds another, a run that begins anew gets a record of its own.

        Args:
            content: the bounds, and what they are measured with.
            step: optimizer step that the run begins at.
            answers: number of answers that were there before.
            resumes: whether the run goes on from a checkpoint, so that its bounds are no longer free.
            origins: the models that another is made of here, or that are measured; the chain goes on from theirs.

        Raises:
            EvidenceError: when a resumed run has another statement than its first start.
        """
        statement = {"format": FORMAT, "kind": self.kind, **portable(content)}
        text = document(statement)
        first = self._first(resumes)
        if first is not None and first[1] == text and _inputs(first[0]) == [origin.entry for origin in origins]:
            self.chain = first[0].beginning()
            self._forget_the_end()
            self._write_inputs(origins)
            self.chain.add(RESUMED if resumes or step or answers else STARTED, **self._start(step, answers))
        elif first is not None and resumes:
            raise EvidenceError(_changed(parse_json(first[1], STATEMENT), statement, self.folder))
        else:
            self._forget_the_end()
            write_text(self.folder / STATEMENT, text)
            self._write_inputs(origins)
            self.chain = Chain()
            for origin in origins:
                self.chain.add(INPUT, **origin.entry)
            self.chain.add(STATED, time=self.chain.time(self._clock()), path=STATEMENT, **self._digest(STATEMENT))
            self.chain.add(STARTED, **self._start(step, answers))
        self._write()

    @property
    def statement_digest(self) -> str:
        """The SHA-256 of the statement."""
        return str(next(self.chain.of(STATED))["sha256"])

    def seal(self, documents: Mapping[str, Any]) -> None:
        """Write what the run did and measured, and the digest of every file.

        Args:
            documents: content of each document, by its path.

        Raises:
            EvidenceError: when a file cannot be read.
        """
        for path, content in documents.items():
            write_text(self.folder / path, document(content))
        chain = self.chain.beginning()
        held = sorted(look(self.folder, self.kind).files - {MANIFEST, STATEMENT})
        for path in held:
            chain.add(FILE, path=path, stays=stays(path), **self._digest(path))
        chain.add(SEALED, time=chain.time(self._clock()), files=len(held) + 1)
        self.chain = chain
        self._write()

    def copied_to(self, folder: str | Path) -> "Record":
        """Return the record, as far as the run has come, for another folder that it has filled.

        Args:
            folder: the other folder, such as that of a merge.
        """
        other = Record(folder, self.kind, self.digests, self._clock)
        other._forget_the_end()
        write_text(other.folder / STATEMENT, read_bytes(self.folder / STATEMENT, STATEMENT).decode("utf-8"))
        if (self.folder / INPUTS).is_dir():
            shutil.copytree(self.folder / INPUTS, other.folder / INPUTS)
        other.chain = self.chain.beginning()
        return other

    @property
    def began_late(self) -> bool:
        """Whether something was trained or answered when the statement was written: its bounds decide nothing."""
        first = next(self.chain.of(STARTED))
        return bool(first["step"] or first["answers"])

    def _start(self, step: int, answers: int) -> dict[str, Any]:
        return {"time": self.chain.time(self._clock()), "step": step, "answers": answers}

    def _digest(self, path: str) -> dict[str, Any]:
        return self.digests.of(self.folder / path, path)._asdict()

    def _first(self, resumes: bool) -> tuple[Chain, str] | None:
        """Return the lines and the statement that are there; None where there are none, or none that can be read."""
        if not (self.folder / MANIFEST).is_file():
            return None
        try:
            chain = Chain.parse(read_bytes(self.folder / MANIFEST, MANIFEST))
            stated = next(chain.of(STATED))
            if self._digest(STATEMENT)["sha256"] != stated["sha256"]:
                raise Mismatch(STATEMENT, "was changed.")
            return chain, read_bytes(self.folder / STATEMENT, STATEMENT).decode("utf-8")
        except (Mismatch, StopIteration, UnicodeDecodeError) as error:
            if not resumes:
                return None  # it begins anew
            raise EvidenceError(
                f"The evidence in '{self.folder}' is damaged, so that the bounds of the first start are not known: "
                f"{getattr(error, 'fault', 'the manifest is empty.')} Restore it, or train from the beginning in "
                "another `output_dir`."
            ) from error

    def _forget_the_end(self) -> None:
        """Delete what an earlier run in this folder wrote when it had ended."""
        for path in (RUN, COMPUTE, MEASURED, MANIFEST):
            (self.folder / path).unlink(missing_ok=True)
        for path in (INPUTS, EVALUATIONS):
            if (self.folder / path).is_dir():
                shutil.rmtree(self.folder / path)

    def _write_inputs(self, origins: Sequence[Origin]) -> None:
        for origin in origins if self.kind != EVALUATION else ():
            origin.write(self.folder)

    def _write(self) -> None:
        write_text(self.folder / MANIFEST, self.chain.text())


def has_record(folder: str | Path) -> bool:
    """Return whether a folder has evidence, or something in its place."""
    path = Path(folder) / EVIDENCE
    return path.exists() or path.is_symlink()


def note_ignored_gate(folder: str | Path) -> bool:
    """Add to a sealed record that a person pushed the model though it had not kept its bounds.

    Args:
        folder: folder of the model.

    Returns:
        Whether it was added: not where that is said already.
    """
    path = Path(folder) / MANIFEST
    chain = Chain.parse(read_bytes(path, MANIFEST))
    if not chain.is_sealed or next(chain.of(GATE_IGNORED), None):
        return False
    chain.add(GATE_IGNORED, time=chain.time(now()))
    write_text(path, chain.text())
    return True


def _inputs(chain: Chain) -> list[dict[str, Any]]:
    return [{key: entry[key] for key in ("role", "name", "weights", "head")} for entry in chain.of(INPUT)]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> str:
    """Say what a resumed run has changed of its statement."""
    name = next(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))
    then, wanted = (_shown(one.get(name)) for one in (old, new))
    return (
        f"The {name} of this run are {wanted}, and at its first start they were {then}: what decides about a model is "
        f"set before its run. Resume with those of '{folder / STATEMENT}', or train from the beginning in another "
        "`output_dir`."
    )


def _shown(value: Any) -> str:
    bounds = [f"{item['bound']}={item['limit']}" for item in value or () if isinstance(item, dict) and "bound" in item]
    text = ", ".join(bounds) or str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
