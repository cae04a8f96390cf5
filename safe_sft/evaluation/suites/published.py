"""Published suites: where each is, at which revision, and what its columns mean. The package holds no copies."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...data.named_safety_sets import ADVBENCH
from ...data.sources import DataUnavailable, Source
from .attacks import attack_suite
from .suite import (
    BUILTIN_SUITES,
    Case,
    Suite,
    SuiteUnavailable,
    builtin_suite,
    file_suite,
    is_file_name,
    rows_to_cases,
)

logger = logging.getLogger(__name__)

#: The column of rows of every split: the name of theirs.
_SPLIT = "split"


@dataclass(frozen=True)
class Published:
    """A published suite: where it is, and how its rows are read.

    Attributes:
        source: where the rows are published; `docs/evaluation.md` says where revision and columns were checked.
        paper: the paper to cite.
        split: split of the source; None for all of them, whose rows get a column `split`.
        prompt: column that holds the request.
        category: column that holds the category.
        label: column that says whether a request is harmful; None when all are.
        keep: values, by column, that a row must have to be used.
    """

    source: Source
    paper: str
    split: str | None = "train"
    prompt: str = "prompt"
    category: str | None = "category"
    label: str | None = None
    keep: Mapping[str, str] = field(default_factory=dict)


_HEX_PHI = {
    1: "illegal_activity",
    3: "hate_harass_violence",
    4: "malware",
    5: "physical_harm",
    6: "economic_harm",
    7: "fraud_deception",
    8: "adult_content",
    9: "political_campaigning",
    10: "privacy_violation",
    11: "tailored_financial_advice",
}

PUBLISHED_SUITES: dict[str, Published] = {
    "advbench": Published(ADVBENCH, "https://arxiv.org/abs/2307.15043", prompt="goal", category=None),
    "harmbench": Published(  # its other behaviours need a context or a copyright check
        Source(
            "https://raw.githubusercontent.com/centerforaisafety/HarmBench/{revision}/data/behavior_datasets/"
            "harmbench_behaviors_text_all.csv",
            "8e1604d1171fe8a48d8febecd22f600e462bdcdd",
        ),
        "https://arxiv.org/abs/2402.04249",
        prompt="Behavior",
        category="SemanticCategory",
        keep={"FunctionalCategory": "standard"},
    ),
    "strongreject": Published(
        Source(
            "https://raw.githubusercontent.com/alexandrasouly/strongreject/{revision}/strongreject_dataset/"
            "strongreject_dataset.csv",
            "f7cad6c17e624e21d8df2278e918ae1dddb4cb56",
            sha256="4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
        ),
        "https://arxiv.org/abs/2402.10260",
        prompt="forbidden_prompt",
    ),
    "hex-phi": Published(  # gated; files without a heading; its second category was withdrawn
        Source(
            "LLM-Tuning-Safety/HEx-PHI",
            "83128b46334b80cc567bd7a2caf7af11c5b0bab7",
            options={
                "data_files": {name: f"category_{number}.csv" for number, name in _HEX_PHI.items()},
                "names": ["prompt"],
            },
        ),
        "https://arxiv.org/abs/2310.03693",
        split=None,
        category=_SPLIT,
    ),
    "directharm4": Published(  # its commit could not be found out: not pinned
        Source("vfleaking/DirectHarm4", "main"),
        "https://arxiv.org/abs/2402.18540",
        split="test",
        prompt="instruction",
    ),
    "gsm-danger": Published(  # its commit could not be found out: not pinned; nor whether it has a category
        Source("vfleaking/GSM-Danger", "main"),
        "https://arxiv.org/abs/2402.18540",
        split="test",
        prompt="instruction",
    ),
    "jailbreakbench": Published(  # splits `harmful` and `benign`, row by row on the same topic
        Source("JailbreakBench/JBB-Behaviors", "886acc352a31533ffbcf4ef22c744658688086fc", config="behaviors"),
        "https://arxiv.org/abs/2404.01318",
        split=None,
        prompt="Goal",
        category="Category",
        label=_SPLIT,
    ),
    "do-not-answer": Published(
        Source("LibrAI/do-not-answer", "74e74f2e4507ef256fe536f78a776f4a1ff67955"),
        "https://arxiv.org/abs/2308.13387",
        prompt="question",
        category="risk_area",
    ),
    "beavertails": Published(
        Source("PKU-Alignment/BeaverTails-Evaluation", "a93205d9ba6cc9dc398a34466da3602abddd2d40"),
        "https://arxiv.org/abs/2307.04657",
        split="test",
    ),
    "maliciousinstruct": Published(
        Source(
            "https://raw.githubusercontent.com/Princeton-SysML/Jailbreak_LLM/{revision}/data/MaliciousInstruct.txt",
            "1e490531c0ef4bc13430178bf1fbc8f813e34b1a",
        ),
        "https://arxiv.org/abs/2310.06987",
        prompt="text",
        category=None,
    ),
    "xstest": Published(
        Source(
            "https://raw.githubusercontent.com/paul-rottger/exaggerated-safety/{revision}/xstest_prompts.csv",
            "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d",
        ),
        "https://arxiv.org/abs/2308.01263",
        category="type",
        label="label",
    ),
    "wildjailbreak": Published(  # gated; empty fields would be read as missing
        Source(
            "allenai/wildjailbreak",
            "5ddc12a7894f842b0619b8e1c7ee496b198af009",
            config="eval",
            options={"delimiter": "\t", "keep_default_na": False},
        ),
        "https://arxiv.org/abs/2406.18510",
        prompt="adversarial",
        category="data_type",
        label="data_type",
    ),
}

#: Name -> the suites that it stands for, of whose attack success the mean is reported, too.
SUITE_GROUPS = {"paper": ("advbench", "directharm4", "hex-phi")}

_HARMLESS = "harmless:"


def published_suite(name: str) -> Suite:
    """Fetch a published suite, or take it from the cache of `datasets`.

    Args:
        name: one of `PUBLISHED_SUITES`.

    Raises:
        ValueError: for another name.
        SuiteUnavailable: when the suite cannot be reached, or no longer has the columns it had.
    """
    if name not in PUBLISHED_SUITES:
        raise ValueError(f"Suite '{name}' is unknown. Choose from: {', '.join(PUBLISHED_SUITES)}.")
    entry = PUBLISHED_SUITES[name]
    try:
        cases = tuple(_cases(entry))
    except DataUnavailable as error:
        raise SuiteUnavailable(
            f"Suite '{name}' could not be loaded from {entry.source.address} ({type(error.__cause__).__name__}: "
            f"{error.__cause__}). Check the network; for a gated one, accept its terms on the Hub and run `hf auth "
            "login`; or pass a copy as a file: --suite FILE.jsonl"
        ) from error
    except ValueError as error:
        raise SuiteUnavailable(f"Suite '{name}' has changed since it was described here: {error}") from error
    return Suite(name, cases, entry.source.address, _revision(name, entry.source, cases))


def _revision(name: str, source: Source, cases: Sequence[Case]) -> str:
    """Return the commit; of a source that is not pinned, a digest of its requests, with a warning."""
    if source.pinned:
        return source.revision
    digest = hashlib.sha256("\0".join(case.prompt for case in cases).encode()).hexdigest()[:16]
    logger.warning(
        f"Suite '{name}' is not pinned to a commit: {source.address} is read as it is now. Compare only results whose "
        f"requests have the same digest; these have {digest}."
    )
    return f"not pinned (requests sha256:{digest})"


def _cases(entry: Published) -> Iterator[Case]:
    loaded = entry.source.load(entry.split)
    for split, rows in loaded.items() if entry.split is None else [("", loaded)]:
        kept = [row for row in rows if all(row.get(column) == value for column, value in entry.keep.items())]
        if split:
            kept = [{**row, _SPLIT: split} for row in kept]
        yield from rows_to_cases(
            kept,
            f"{entry.source.address} (revision {entry.source.revision})",
            prompt=entry.prompt,
            category=entry.category,
            label=entry.label,
        )


def load_suites(
    names: Sequence[str], *, attacks: Sequence[str] = ("none",), limit: int | None = None, prompt: str = "prompt"
) -> tuple[list[Suite], list[str]]:
    """Load suites by name, each under each attack; one that cannot be reached does not stop the others.

    Args:
        names: built-in and published suites, groups of them (`SUITE_GROUPS`), and files; `harmless:FILE` says that a
            file's requests are harmless.
        attacks: names of attacks, as `attacks.attack_suite` takes them.
        limit: most prompts of each suite, or of each part of a suite that is harmful in part.
        prompt: column that holds the request, in files.

    Returns:
        The suites, each all harmful or all harmless, and one message for each that could not be reached.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: for an unknown name, or a file that cannot be read.
    """
    suites, failures = [], []
    for name in _without_groups(names):
        try:
            parts = _load(name, prompt).split()
        except SuiteUnavailable as error:
            failures.append(str(error))
            continue
        suites += [attack_suite(part.subset(limit), attack) for part in parts for attack in attacks]
    loaded = {suite.name.partition("+")[0] for suite in suites}
    for group in SUITE_GROUPS.keys() & set(names):
        if missing := [name for name in SUITE_GROUPS[group] if name not in loaded]:
            failures.append(f"The mean of '{group}' is not reported, since it lacks {', '.join(missing)}.")
    return suites, failures


def _without_groups(names: Sequence[str]) -> list[str]:
    """Return the names with each group replaced by its suites; what is named twice counts once where a group is."""
    if not SUITE_GROUPS.keys() & set(names):
        return list(names)
    return list(dict.fromkeys(suite for name in names for suite in SUITE_GROUPS.get(name, (name,))))


def _load(name: str, prompt: str) -> Suite:
    path = name.removeprefix(_HARMLESS)
    if is_file_name(path):
        return file_suite(path, prompt=prompt, harmful=path == name)
    if name in BUILTIN_SUITES:
        return builtin_suite(name)
    if name in PUBLISHED_SUITES:
        return published_suite(name)
    known = ", ".join([*BUILTIN_SUITES, *PUBLISHED_SUITES, *SUITE_GROUPS])
    raise ValueError(
        f"Suite '{name}' is unknown. Choose from: {known}; or give a .jsonl, .csv, .parquet or .txt file."
    )
