"""Suites: named sets of requests, with what a model should do with each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...data.builtin import builtin_prompts
from ...data.files import FILE_BUILDERS, load_rows
from ...data.forms import as_messages
from ...data.safety_rows import Messages
from ...data.subset import evenly_spread
from ...version import __version__

#: Name of a built-in suite -> (prompt set, whether its requests are harmful).
BUILTIN_SUITES = {"builtin-harmful": ("harmful_heldout", True), "builtin-harmless": ("over_refusal", False)}

# Values of a column `harmful` or `label` that say yes or no, in lower case.
_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "harmful", "unsafe", "adversarial_harmful"), True),
    **dict.fromkeys(("false", "0", "no", "harmless", "safe", "benign", "adversarial_benign"), False),
}


class SuiteUnavailable(RuntimeError):
    """A suite that could not be reached: no network, no access, or a source that has changed."""


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        prompt: the request as it is judged.
        category: kind of harm, or of harmless look-alike.
        harmful: whether a safe model refuses it; a harmless request should be answered.
        messages: what the model is shown, where that is more than `prompt` as one user turn.
        prefill: text that the answer is made to begin with.
    """

    prompt: str
    category: str = ""
    harmful: bool = True
    messages: Messages | None = None
    prefill: str = ""

    @classmethod
    def of(cls, prompt: str | Messages, category: str = "", harmful: bool = True) -> "Case":
        """A case from a text or from chat messages, whose last one is the request."""
        if isinstance(prompt, str):
            return cls(prompt, category, harmful)
        return cls(prompt[-1]["content"], category, harmful, list(prompt))

    @property
    def turns(self) -> Messages:
        """The messages that the model is shown."""
        return as_messages(self.prompt if self.messages is None else self.messages)


@dataclass(frozen=True)
class Suite:
    """A named set of requests.

    Attributes:
        name: as it is shown, with its attacks: `advbench+prefill`.
        cases: the requests.
        source: where they come from.
        revision: of the source: a version, a commit, or a branch where no commit is pinned.
    """

    name: str
    cases: tuple[Case, ...]
    source: str
    revision: str

    @property
    def harmful(self) -> bool:
        """Whether its requests are harmful; mixed suites are split before they are measured."""
        return self.cases[0].harmful

    def split(self) -> list["Suite"]:
        """The suite itself, or, where it is mixed, its harmful part and its harmless one."""
        parts = {kind: tuple(case for case in self.cases if case.harmful is kind) for kind in (True, False)}
        if not all(parts.values()):
            return [self]
        names = {True: f"{self.name}-harmful", False: f"{self.name}-harmless"}
        return [replace(self, name=names[kind], cases=cases) for kind, cases in parts.items()]

    def subset(self, size: int | None) -> "Suite":
        """At most `size` cases, evenly spread, the same ones each time; all of them for None.

        Raises:
            ValueError: when `size` is less than 1.
        """
        if size is None or size >= len(self.cases):
            return self
        if size < 1:
            raise ValueError(f"A subset of {size} prompts measures nothing. Ask for at least 1.")
        return replace(self, cases=tuple(evenly_spread(self.cases, size)))


def builtin_suite(name: str) -> Suite:
    """`builtin-harmful` (held-out harmful requests) or `builtin-harmless` (they merely sound dangerous); offline.

    Raises:
        ValueError: for another name.
    """
    if name not in BUILTIN_SUITES:
        raise ValueError(f"Built-in suite '{name}' is unknown. Choose from: {', '.join(BUILTIN_SUITES)}.")
    prompts, harmful = BUILTIN_SUITES[name]
    cases = tuple(Case(p.prompt, p.category, harmful) for p in builtin_prompts(prompts))
    return Suite(name, cases, f"safe_sft prompts '{prompts}'", __version__)


def rows_to_cases(
    rows: Iterable[Mapping[str, Any]],
    source: str,
    *,
    prompt: str = "prompt",
    category: str | None = "category",
    label: str | None = None,
    harmful: bool = True,
) -> tuple[Case, ...]:
    """Rows of a file or data set as cases.

    Args:
        rows: mappings of columns.
        source: where they come from, for errors.
        prompt: column of the request: text or chat messages.
        category: column of the category, if there is one.
        label: column that says whether a request is harmful: booleans, or words such as `unsafe` and `benign`.
        harmful: what all requests are where there is no label.

    Raises:
        ValueError: when there are no rows, a column is missing, a prompt is empty or a label cannot be read.
    """
    cases = []
    for index, row in enumerate(rows):
        for column in filter(None, (prompt, label)):
            if column not in row:
                raise ValueError(f"{source} has the columns {sorted(row)}. It needs one named `{column}`.")
        if not row[prompt]:
            raise ValueError(f"Row {index} of {source} has an empty `{prompt}`. Remove the row or fill it in.")
        kind = _is_harmful(row[label], index, source) if label else harmful
        cases.append(Case.of(row[prompt], str(row.get(category or "") or ""), kind))
    if not cases:
        raise ValueError(f"{source} has no prompts to measure with. Give at least one.")
    return tuple(cases)


def file_suite(name: str, *, prompt: str = "prompt", harmful: bool = True) -> Suite:
    """A suite from a JSON, JSONL, CSV, Parquet or text file, or from a data set of the Hub with a column of prompts.

    A column `category` is read where there is one, and a column `harmful` (booleans, or words such as `unsafe`).

    Args:
        name: path, or Hub name.
        prompt: column of the request; a text file has one request a line, in `text`.
        harmful: what the requests are, without a column `harmful`.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when a column is missing or cannot be read.
    """
    rows = load_rows(name, split="train")
    column = "text" if Path(name).suffix == ".txt" else prompt
    label = "harmful" if "harmful" in rows.column_names else None
    cases = rows_to_cases(rows, f"'{name}'", prompt=column, label=label, harmful=harmful)
    return Suite(Path(name).stem if is_file_name(name) else name, cases, name, _revision(name))


def is_file_name(name: str) -> bool:
    """Whether `name` is that of a data file, by its suffix."""
    return Path(name).suffix in FILE_BUILDERS


def _revision(name: str) -> str:
    """A digest of a local file; a data set that is named here without a revision has none pinned."""
    import hashlib

    path = Path(name)
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" if path.is_file() else "not pinned"


def _is_harmful(value: object, index: int, source: str) -> bool:
    found = _WORDS.get(str(value).strip().lower())
    if found is None:
        raise ValueError(
            f"Row {index} of {source} is labelled {value!r}, which says neither harmful nor harmless. Use true or "
            "false, or one of: " + ", ".join(_WORDS) + "."
        )
    return found
