"""Suites: named sets of requests, each marked as harmful or harmless."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...data.builtin import builtin_prompts
from ...data.files import FILE_BUILDERS, load_rows
from ...data.forms import as_messages, text_of
from ...data.safety_rows import Messages, template_options
from ...data.subset import evenly_spread
from ...data.values import value_fault
from ...version import __version__

logger = logging.getLogger(__name__)

#: Name of a built-in suite -> (prompt set, whether its requests are harmful).
BUILTIN_SUITES = {"builtin-harmful": ("harmful_heldout", True), "builtin-harmless": ("over_refusal", False)}

#: Values of a column `harmful` or `label` that say yes or no, in lower case.
YES_OR_NO = {
    **dict.fromkeys(("true", "1", "yes", "harmful", "unsafe", "adversarial_harmful"), True),
    **dict.fromkeys(("false", "0", "no", "harmless", "safe", "benign", "adversarial_benign"), False),
}


class SuiteUnavailable(RuntimeError):
    """A suite that could not be reached: no network, no access, or a source that has changed."""


@dataclass(frozen=True)
class Case:
    """One request, and whether it is harmful.

    Attributes:
        prompt: the request that the judge sees.
        category: kind of harm, or kind of harmless look-alike.
        harmful: whether a safe model refuses it; a harmless request should be answered.
        messages: the messages that the model is shown, where they are more than `prompt` as one user turn.
        prefill: text that the answer is made to begin with.
        options: further variables of the chat template, from the row's columns `chat_template_kwargs` and `tools`.
    """

    prompt: str
    category: str = ""
    harmful: bool = True
    messages: Messages | None = None
    prefill: str = ""
    options: dict[str, Any] | None = None

    @classmethod
    def of(cls, prompt: str | Messages, category: str = "", harmful: bool = True) -> "Case":
        """Make a case from a text, or from chat messages of which the last one is the request."""
        if isinstance(prompt, str):
            return cls(prompt, category, harmful)
        return cls(text_of(prompt[-1]["content"]), category, harmful, list(prompt))

    @property
    def turns(self) -> Messages:
        """The messages that the model is shown."""
        return as_messages(self.prompt if self.messages is None else self.messages)


@dataclass(frozen=True)
class Suite:
    """A named set of requests.

    Attributes:
        name: name that tables show, with its attacks: `advbench+prefill`.
        cases: the requests.
        source: where the requests come from.
        revision: revision of the source: a version, a commit, or a branch where no commit is pinned.
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
        """Return the suite itself, or, where it is mixed, its harmful and its harmless part."""
        parts = {kind: tuple(case for case in self.cases if case.harmful is kind) for kind in (True, False)}
        if not all(parts.values()):
            return [self]
        names = {True: f"{self.name}-harmful", False: f"{self.name}-harmless"}
        return [replace(self, name=names[kind], cases=cases) for kind, cases in parts.items()]

    def subset(self, size: int | None) -> "Suite":
        """Return a suite of at most `size` cases, evenly spread, the same ones each time; all of them for None.

        Raises:
            ValueError: when `size` is less than 1.
        """
        if size is None or size >= len(self.cases):
            return self
        if size < 1:
            raise ValueError(f"A subset of {size} prompts measures nothing. Ask for at least 1.")
        return replace(self, cases=tuple(evenly_spread(self.cases, size)))


def builtin_suite(name: str) -> Suite:
    """Return `builtin-harmful` (held-out requests) or `builtin-harmless` (they merely sound dangerous); offline.

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
    """Turn the rows of a file or data set into cases.

    Args:
        rows: the rows, as mappings from column to value.
        source: where the rows come from, for error messages.
        prompt: column that holds the request: text or chat messages.
        category: column that holds the category, if there is one.
        label: column that says whether a request is harmful: booleans, or words such as `unsafe` and `benign`.
        harmful: whether all requests are harmful, where there is no label.

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
        if fault := value_fault(row[prompt]):
            raise ValueError(f"Row {index} of {source}: `{prompt}` {fault}. Remove the row or correct it.")
        kind = _is_harmful(row[label], index, source) if label else harmful
        case = Case.of(row[prompt], str(row.get(category or "") or ""), kind)
        cases.append(replace(case, options=template_options(row, f"Row {index} of {source}") or None))
    if not cases:
        raise ValueError(f"{source} has no prompts to measure with. Give at least one.")
    return tuple(cases)


def _distinct(cases: tuple[Case, ...], name: str) -> tuple[Case, ...]:
    """Leave out the cases that ask the same as an earlier one."""
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(repr((case.turns, case.harmful, case.options)), case)
    kept = tuple(first.values())
    if len(kept) < len(cases):
        logger.warning(
            "%d of the %d requests of '%s' repeat another, and count once.", len(cases) - len(kept), len(cases), name
        )
    return kept


def file_suite(name: str, *, prompt: str = "prompt", harmful: bool = True) -> Suite:
    """Read a suite from a JSON, JSONL, CSV, Parquet or text file, or from a data set of the Hub with a prompt column.

    A column `category` is read where there is one, and a column `harmful` (booleans, or words such as `unsafe`). A
    request that stands there more than once counts once, and is said: the model answers it the same way each time, and
    an interval over copies would be too narrow.

    Args:
        name: path of the file, or Hub name.
        prompt: column that holds the request; a text file has one request per line, in the column `text`.
        harmful: whether the requests are harmful, where there is no column `harmful`.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when a column is missing or cannot be read.
    """
    rows = load_rows(name, split="train")
    column = "text" if Path(name).suffix == ".txt" else prompt
    label = "harmful" if "harmful" in rows.column_names else None
    cases = _distinct(rows_to_cases(rows, f"'{name}'", prompt=column, label=label, harmful=harmful), name)
    return Suite(Path(name).stem if is_file_name(name) else name, cases, name, _revision(name))


def is_file_name(name: str) -> bool:
    """Whether `name` is that of a data file, by its suffix."""
    return Path(name).suffix in FILE_BUILDERS


def _revision(name: str) -> str:
    """Return the digest of a local file; a data set of the Hub that is named without a revision has none pinned."""
    import hashlib

    path = Path(name)
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" if path.is_file() else "not pinned"


def _is_harmful(value: object, index: int, source: str) -> bool:
    found = YES_OR_NO.get(str(value).strip().lower())
    if found is None:
        raise ValueError(
            f"Row {index} of {source} is labelled {value!r}, which says neither harmful nor harmless. Use true or "
            "false, or one of: " + ", ".join(YES_OR_NO) + "."
        )
    return found
