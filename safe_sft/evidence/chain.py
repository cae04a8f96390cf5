"""`manifest.jsonl`: what happened and which files there are, each line chained to the one before.

A line is JSON with a number `n`, an `event`, what belongs to it, and `chain`: the SHA-256 of the chain of the line
before and of this line without its chain. So no line can be changed, left out, added or moved alone.

    input       a model that this one was made of: its weights, and the head of its chain, from which this one goes on
    stated      the statement, with the bounds, was written
    started     the run began, at an optimizer step, with so many answers that were there before
    resumed     it went on
    file        a file, as it was when the run had ended
    sealed      the record is complete
    accepted    a text, such as the card, as a person has changed it since
    gate_ignored  a person pushed the model though it had not kept its bounds
    attached    a file of the evidence of an evaluation of this model, which was added since
    evaluated   that evidence is complete: its folder, and the head of its chain
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .strict import Mismatch, as_written, canonical, parse_json

MANIFEST = "evidence/manifest.jsonl"
STATED, STARTED, RESUMED, FILE = "stated", "started", "resumed", "file"
SEALED, ACCEPTED, GATE_IGNORED = "sealed", "accepted", "gate_ignored"
INPUT, ATTACHED, EVALUATED = "input", "attached", "evaluated"

_OF_A_FILE: dict[str, type] = {"path": str, "size": int, "sha256": str}
#: What belongs to each event.
_FIELDS: dict[str, dict[str, type]] = {
    STATED: {"time": str, **_OF_A_FILE},
    STARTED: {"time": str, "step": int, "answers": int},
    RESUMED: {"time": str, "step": int, "answers": int},
    FILE: {**_OF_A_FILE, "stays": bool},
    SEALED: {"time": str, "files": int},
    ACCEPTED: {"time": str, **_OF_A_FILE},
    GATE_IGNORED: {"time": str},
    INPUT: {"role": str, "name": str, "weights": str, "head": str},
    ATTACHED: {"time": str, **_OF_A_FILE},
    EVALUATED: {"time": str, "folder": str, "head": str},
}
#: The order of the events, by their letters.
_LETTERS = dict(zip(_FIELDS, "abrfsctixv", strict=True))
_ORDER = re.compile(r"i*a(b[br]*(f*(s(?:[ct]|x+v)*)?)?)?")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BEGINNING = "0" * 64
#: Most lines, so that a forged file cannot keep one busy.
_MOST_LINES = 200_000


@dataclass
class Chain:
    """The lines, in order.

    Attributes:
        entries: a mapping for each line.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def head(self) -> str:
        """The chain of the last line, which stands for all lines."""
        return str(self.entries[-1]["chain"]) if self.entries else _BEGINNING

    def add(self, event: str, **fields: Any) -> None:
        """Add a line.

        Args:
            event: what happened.
            fields: what belongs to it.
        """
        entry = {"n": len(self.entries), "event": event, **fields}
        self.entries.append({**entry, "chain": _link(self.head, entry)})

    def time(self, now: str) -> str:
        """Return the time of a new line: that of a clock which was put back is not before the line before."""
        return max(now, *(str(entry["time"]) for entry in self.entries if "time" in entry), "")

    def of(self, *events: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of some events."""
        return (entry for entry in self.entries if entry["event"] in events)

    def files(self) -> dict[str, dict[str, Any]]:
        """Return the newest line of each file, by path, in order."""
        return {entry["path"]: entry for entry in self.of(STATED, FILE, ACCEPTED, ATTACHED)}

    @property
    def is_sealed(self) -> bool:
        """Whether the record is complete."""
        return next(self.of(SEALED), None) is not None

    @property
    def sealed_head(self) -> str:
        """The chain of the line that sealed the record; what a person has added since is behind it."""
        return str(next(self.of(SEALED))["chain"])

    def beginning(self) -> "Chain":
        """Return the lines before the first file: those of a run that has not ended."""
        ends = [entry["n"] for entry in self.of(FILE, SEALED)]
        return Chain(self.entries[: min(ends, default=len(self.entries))])

    def text(self) -> str:
        """Return the file's content."""
        return "".join(canonical(entry).decode() + "\n" for entry in self.entries)

    @classmethod
    def parse(cls, content: bytes) -> "Chain":
        """Read what `text` wrote.

        Raises:
            Mismatch: for the first line that is not as it was written.
        """
        lines = content.split(b"\n", _MOST_LINES + 1)
        if len(lines) > _MOST_LINES + 1:
            raise Mismatch(MANIFEST, f"has more than {_MOST_LINES} lines.")
        if lines.pop():
            raise Mismatch(MANIFEST, "ends in the middle of a line.")
        chain = cls()
        for number, line in enumerate(lines):
            entry = parse_json(line, f"{MANIFEST}, line {number + 1}")
            with as_written(f"{MANIFEST}, line {number + 1}"):
                _check(entry, number, line, chain.head)
            chain.entries.append(entry)
        letters = "".join(_LETTERS[entry["event"]] for entry in chain.entries)
        if not _ORDER.fullmatch(letters):
            raise Mismatch(MANIFEST, "does not begin with the bounds and the start of the run, or is out of order.")
        return chain


def _check(entry: Any, number: int, line: bytes, head: str) -> None:
    place = f"{MANIFEST}, line {number + 1}"
    fields = {"n": int, "event": str, "chain": str, **_FIELDS[entry["event"]]}
    if entry.keys() != fields.keys() or any(type(entry[name]) is not kind for name, kind in fields.items()):
        raise Mismatch(place, "does not have the fields of its event.")
    if canonical(entry) != line:
        raise Mismatch(place, "is not written as this package writes it.")
    own = {name: value for name, value in entry.items() if name != "chain"}
    if entry["n"] != number or entry["chain"] != _link(head, own):
        raise Mismatch(place, "is not chained to the line before: a line was changed, left out, added or moved.")
    if not _TIME.fullmatch(entry.get("time", "2000-01-01T00:00:00Z")):
        raise Mismatch(place, "has a time that is none.")
    if not _SHA256.fullmatch(entry.get("sha256", _BEGINNING)) or min(_numbers(entry), default=0) < 0:
        raise Mismatch(place, "has a digest or a number that is none.")
    if entry.get("head") and not _SHA256.fullmatch(entry["head"]):
        raise Mismatch(place, "has a head of a chain that is none.")


def _numbers(entry: Mapping[str, Any]) -> list[int]:
    return [entry[name] for name in ("size", "step", "answers", "files") if name in entry]


def _link(before: str, entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(before.encode() + b"\n" + canonical(entry)).hexdigest()
