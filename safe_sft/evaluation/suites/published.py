"""Published suites: where each is, at which revision, and what its columns mean. The package holds no copies."""

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


@dataclass(frozen=True)
class Published:
    """A published suite: where it is, and how its rows are read.

    Attributes:
        source: where the rows are published; `docs/evaluation.md` says where revision and columns were checked.
        paper: the paper to cite.
        split: split of the source; None where each split is named after the category of its rows.
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
    return Suite(name, cases, entry.source.address, entry.source.revision)


def _cases(entry: Published) -> Iterator[Case]:
    loaded = entry.source.load(entry.split)
    for category, rows in loaded.items() if entry.split is None else [("", loaded)]:
        kept = [row for row in rows if all(row.get(column) == value for column, value in entry.keep.items())]
        if category:
            kept = [{**row, "category": category} for row in kept]
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
        names: built-in and published suites, and files; `harmless:FILE` says that a file's requests are harmless.
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
    for name in names:
        try:
            parts = _load(name, prompt).split()
        except SuiteUnavailable as error:
            failures.append(str(error))
            continue
        suites += [attack_suite(part.subset(limit), attack) for part in parts for attack in attacks]
    return suites, failures


def _load(name: str, prompt: str) -> Suite:
    path = name.removeprefix(_HARMLESS)
    if is_file_name(path):
        return file_suite(path, prompt=prompt, harmful=path == name)
    if name in BUILTIN_SUITES:
        return builtin_suite(name)
    if name in PUBLISHED_SUITES:
        return published_suite(name)
    known = ", ".join([*BUILTIN_SUITES, *PUBLISHED_SUITES])
    raise ValueError(
        f"Suite '{name}' is unknown. Choose from: {known}; or give a .jsonl, .csv, .parquet or .txt file."
    )
