"""Recomputes what a record says, and names the first file that is not as it says. Nothing in the folder is trusted.

No file is opened that a listing of the folder has not shown to be a file in it, whatever a manifest names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..storage.names import EVIDENCE
from ..storage.writing import write_text
from .agreement import check_documents, check_start
from .chain import ACCEPTED, ATTACHED, EVALUATED, FILE, INPUT, MANIFEST, SEALED, STATED, Chain
from .digests import Digests
from .faults import of_weights, remedy, strange
from .measures import Measured
from .record import DOCUMENTS, FORMAT, STATEMENT, now
from .scope import EVALUATION, EVALUATIONS, INPUTS, KINDS, Found, is_held, is_text, look, path_fault
from .strict import EvidenceError, FileDigest, Mismatch, as_written, parse_json, read_bytes

_LET_IT_END = "Let the run end: the same command goes on where it was."
_OTHER = "Verify it with the version of safe_sft that wrote it."
#: Most models that a chain goes back, one made of the other.
_DEEPEST = 32


@dataclass(frozen=True)
class Verified:
    """A record that is as it was written.

    Attributes:
        kind: one of `scope.KINDS`.
        files: number of files that were compared.
        absent: files that stay where they were written, and are not here.
        chain: the lines of the manifest.
        documents: the documents, by path.
        inputs: the evidence of what it was made of, by its role; none of what has no evidence.
        evaluations: the evidence of evaluations that were added, in order.
    """

    kind: str
    files: int
    absent: tuple[str, ...]
    chain: Chain
    documents: Mapping[str, Any]
    inputs: Mapping[str, "Verified"] = field(default_factory=dict)
    evaluations: tuple["Verified", ...] = ()

    @property
    def measured(self) -> Measured:
        """What was measured, and of which weights."""
        return Measured.of(self.documents)


def verify(folder: str | Path, model: str | Path | None = None, digests: Digests | None = None) -> Verified:
    """Compare a folder with its evidence.

    Args:
        folder: folder of a model or of an evaluation, with its `evidence/`.
        model: folder of the model that an evaluation must be of; None for not compared.
        digests: digests of files that are known already; None for none.

    Raises:
        EvidenceError: when there is no evidence, or it is not complete.
        Mismatch: for the first file that does not match.
    """
    digests = digests or Digests()
    found = _Examination(Path(folder), digests).verified()
    if model is not None:
        found.measured.require_of(Path(model), digests)
    return found


def verify_alone(folder: Path) -> Verified:
    """Compare evidence with itself, where what it is of is not here.

    Args:
        folder: folder that holds the folder `evidence` of a model, and nothing else. Another model's is going to go on
            from it.

    Raises:
        EvidenceError: as `verify`.
    """
    return _Examination(folder, Digests(), alone=True, depth=1).verified()


def accept_texts(folder: str | Path, digests: Digests | None = None) -> list[str]:
    """Record the texts that a person has changed or added, such as the card or a licence; all else must match.

    Args:
        folder: folder of a model, with its `evidence/`.
        digests: digests of files that are known already; None for none.

    Returns:
        Paths of the texts.

    Raises:
        EvidenceError: as `verify`.
    """
    found = _Examination(Path(folder), digests or Digests(), accepts=True)
    found.verified()
    for path, digest in found.texts.items():
        found.chain.add(ACCEPTED, time=found.chain.time(now()), path=path, **digest._asdict())
    if found.texts:
        write_text(Path(folder) / MANIFEST, found.chain.text())
    return list(found.texts)


class _Examination:
    """One pass over a folder.

    Args:
        folder: the folder.
        digests: digests of files that are known already.
        accepts: whether a text that was changed or added is kept in `texts`, where it would be a mismatch.
        alone: whether the folder holds the evidence and nothing of what it is of.
        depth: how many others go on from this record.
    """

    def __init__(self, folder: Path, digests: Digests, accepts: bool = False, alone: bool = False, depth: int = 0):
        self.folder, self.accepts, self.alone, self.depth = folder, accepts, alone, depth
        self.texts: dict[str, FileDigest] = {}
        self._digests = digests
        self.chain = _read_chain(folder)

    def verified(self) -> Verified:
        """Compare everything, in order: the statement, the files, what is there beside them, what they say."""
        stated = next(self.chain.of(STATED))
        if stated["path"] != STATEMENT:
            raise Mismatch(MANIFEST, f"names another statement than {STATEMENT}.")
        found = self._look()
        self._compare(stated, found)
        kind = self._kind()
        found = look(self.folder, kind)
        if not self.chain.is_sealed:
            raise Mismatch(
                MANIFEST, "is not complete: the run has not ended, or its last lines were cut off.", _LET_IT_END
            )
        absent = [entry["path"] for entry in self._newest(kind).values() if not self._compare(entry, found)]
        self._look_for_more(found)
        documents = {path: self._document(path) for path in DOCUMENTS if path in self.chain.files()}
        check_start(self.chain, documents[STATEMENT])
        files = {entry["path"]: entry["sha256"] for entry in self.chain.of(FILE)}
        check_documents(documents, files, self.folder, stated["sha256"], found.files)
        count = len(self.chain.files()) - len(absent)
        inputs = {} if kind == EVALUATION else self._inputs()
        return Verified(
            kind, count, tuple(absent), self.chain, documents, inputs, self._evaluations(Measured.of(documents))
        )

    def _inputs(self) -> dict[str, Verified]:
        """Examine the evidence that the chain goes on from."""
        found: dict[str, Verified] = {}
        for entry in self.chain.of(INPUT):
            role, place = entry["role"], f"{INPUTS}/{entry['role']}"
            if path_fault(role) or "/" in role or role in found:
                raise Mismatch(MANIFEST, f"names an input {role!r}, which is no name, or there twice.")
            if not entry["head"]:
                continue
            earlier = self._other(place, entry["head"], "that the chain goes on from")
            own = earlier.measured.own
            if earlier.kind == EVALUATION or (
                entry["weights"].startswith("sha256:") and own != _own(entry["weights"])
            ):
                raise Mismatch(place, f"is the evidence of other weights than those of the input `{role}`.")
            found[role] = earlier
        return found

    def _evaluations(self, measured: Measured) -> tuple[Verified, ...]:
        """Examine the evaluations that were added since."""
        found = []
        for entry in self.chain.of(EVALUATED):
            place = entry["folder"]
            if path_fault(place) or str(PurePosixPath(place).parent) != EVALUATIONS:
                raise Mismatch(MANIFEST, f"names {place!r} as a folder of an evaluation, which is none.")
            added = self._other(place, entry["head"], "that was added")
            if added.kind != EVALUATION:
                raise Mismatch(place, f"is the evidence of a {added.kind}, and not of an evaluation.")
            added.measured.require_on_trial(measured, place)
            found.append(added)
        return tuple(found)

    def _other(self, place: str, head: str, what: str) -> Verified:
        """Examine the evidence of another folder, which lies in this one's."""
        if self.depth >= _DEEPEST:
            raise Mismatch(
                place, f"goes back more than {_DEEPEST} models.", "Begin a chain: remove the `evidence` of the oldest."
            )
        try:
            other = _Examination(self.folder / place, self._digests, alone=True, depth=self.depth + 1).verified()
        except Mismatch as error:
            raise Mismatch(f"{place}/{error.path}", error.reason, error.remedy) from error
        except EvidenceError as error:
            raise Mismatch(place, f"holds no evidence, and {MANIFEST} says that it does.") from error
        if head not in (other.chain.sealed_head, other.chain.head):
            raise Mismatch(place, f"is not the evidence {what}: the head of its chain is another.")
        return other

    def _look(self) -> Found:
        """Look at the folder of evidence alone, as long as it is not known what the record is of."""
        found = look(self.folder, EVALUATION)
        strange = {path: what for path, what in found.strange.items() if path in (STATEMENT, MANIFEST, "evidence")}
        return Found(found.files, strange)

    def _kind(self) -> str:
        statement = self._document(STATEMENT)
        with as_written(STATEMENT):
            if statement["format"] != FORMAT:
                raise Mismatch(
                    STATEMENT, f"has the format {statement['format']!r}. This version reads {FORMAT!r}.", _OTHER
                )
            if statement["kind"] not in KINDS:
                raise Mismatch(STATEMENT, f"is of a kind that is not known, {statement['kind']!r}.", _OTHER)
            return str(statement["kind"])

    def _newest(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the newest line of each file, after a look at their names."""
        seen: set[str] = set()
        for entry in self.chain.of(STATED, FILE, ACCEPTED, ATTACHED):
            path = entry["path"]
            if fault := path_fault(path):
                raise Mismatch(path, f"{fault}, and {MANIFEST} names it as a file of this folder.")
            if path == MANIFEST or not is_held(path, kind):
                raise Mismatch(path, f"is none of the files that are held to, and {MANIFEST} names it.")
            if path in seen and entry["event"] != ACCEPTED:
                raise Mismatch(path, f"is named twice in {MANIFEST}.")
            if entry["event"] == ATTACHED and not path.startswith(f"{EVALUATIONS}/"):
                raise Mismatch(path, f"is no evidence of an evaluation, and {MANIFEST} names it as such.")
            if entry["event"] == ACCEPTED and not is_text(path):
                raise Mismatch(path, f"is no text that a person may change, and {MANIFEST} says that one did.")
            seen.add(path)
        sealed = next(self.chain.of(SEALED))
        if sealed["files"] != len(list(self.chain.of(STATED, FILE))):
            raise Mismatch(MANIFEST, "has another number of files than it says.")
        return self.chain.files()

    def _compare(self, entry: Mapping[str, Any], found: Found) -> bool:
        """Compare a file; returns False for one that stays where it was written, and is not here."""
        path = entry["path"]
        for part in (path, *map(str, PurePosixPath(path).parents)):
            if part in found.strange:
                raise strange(part, found.strange[part])
        if path not in found.files:
            if entry.get("stays") or (self.alone and not path.startswith(f"{EVIDENCE}/")):
                return False
            raise Mismatch(path, f"is missing.{of_weights(path)}")
        try:
            now = self._digests.of(self.folder / path, path, None if self._takes(path) else entry["size"])
        except Mismatch as error:
            raise Mismatch(path, f"{error.reason}{of_weights(path)}", remedy(path)) from error
        if now != FileDigest(entry["size"], entry["sha256"]):
            if not self._takes(path):
                raise Mismatch(path, f"was changed since the record was sealed.{of_weights(path)}", remedy(path))
            self.texts[path] = now
        return True

    def _look_for_more(self, found: Found) -> None:
        known = {MANIFEST, *self.chain.files()}
        for path in sorted({*found.strange, *found.files} - known):
            if path in found.strange:
                raise strange(path, found.strange[path])
            if not self._takes(path):
                raise Mismatch(path, "was added since the record was sealed.", remedy(path, "Remove it."))
            self.texts[path] = self._digests.of(self.folder / path, path)

    def _takes(self, path: str) -> bool:
        return self.accepts and is_text(path)

    def _document(self, path: str) -> Any:
        return parse_json(read_bytes(self.folder / path, path), path)


def _read_chain(folder: Path) -> Chain:
    if not folder.is_dir():
        raise EvidenceError(f"The folder '{folder}' does not exist (looked in {Path.cwd()}). Check the path.")
    for part in ("evidence", MANIFEST):
        if (folder / part).is_symlink():
            raise strange(part, "link")
    if not (folder / MANIFEST).exists():
        raise EvidenceError(
            f"The folder '{folder}' has no {MANIFEST}. `safe-sft train` writes one, and `safe-sft evaluate` with "
            "`--output`; give their folder."
        )
    chain = Chain.parse(read_bytes(folder / MANIFEST, MANIFEST))
    if not chain.entries:
        raise Mismatch(MANIFEST, "is empty.")
    return chain


def _own(weights: str) -> str:
    """Return the weights of an adapter without those of its base; those of a model as they are."""
    return weights.split(" + ")[-1]
