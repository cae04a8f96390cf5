"""Judges by name, as they are written on the command line."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from accelerate import PartialState

from .api import ApiJudge, Prices
from .base import Judge
from .classifier import Classifier, require_verdicts
from .guard import Guard
from .guard_formats import GUARDS
from .refusal_phrases import RefusalPhrases

KINDS = ("refusal_phrases", "classifier:MODEL", "guard:FAMILY[=MODEL]", "api:MODEL")


@dataclass(frozen=True)
class JudgeOptions:
    """What some judges need beside their name.

    Attributes:
        labels: verdict for each label of a classifier.
        batch_size: answers judged at a time, by judges that are models.
        url: base address of an API.
        key_variable: environment variable that holds the API's key.
        cache: folder for the API's verdicts; None keeps none.
        prices: US dollars for a million tokens of the API, to reckon its cost.
        max_cost: cap on that cost, in US dollars, over all ranks.
        concurrency: requests to the API at a time.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 16
    url: str = "https://api.openai.com/v1"
    key_variable: str = "OPENAI_API_KEY"
    cache: str | os.PathLike[str] | None = None
    prices: Prices | None = None
    max_cost: float | None = None
    concurrency: int = 8


def judge_maker(name: str, options: JudgeOptions | None = None) -> Callable[[], Judge]:
    """Return a function that makes the judge: names are checked now, models are loaded when they are needed.

    Args:
        name: `refusal_phrases`, `classifier:MODEL`, `guard:FAMILY`, `guard:FAMILY=MODEL` or `api:MODEL`.
        options: what some judges need beside their name.

    Raises:
        ValueError: for another name, or an option that cannot be used.
    """
    options = options or JudgeOptions()
    kind, _, model = name.partition(":")
    if name == "refusal_phrases":
        return RefusalPhrases
    if kind == "classifier" and model:
        require_verdicts(options.labels)
        return lambda: Classifier(model, options.labels, batch_size=options.batch_size)
    if kind == "guard" and model:
        family, _, path = model.partition("=")
        if family not in GUARDS:
            raise ValueError(f"Guard '{family}' is unknown. Choose from: {', '.join(GUARDS)}.")
        return lambda: Guard(family, name=path or None, batch_size=options.batch_size)
    if kind == "api" and model:
        _api(model, options)  # checks the options
        return lambda: _api(model, options)
    raise ValueError(f"Judge '{name}' is unknown. Choose from: {', '.join(KINDS)}.")


def _api(model: str, options: JudgeOptions) -> ApiJudge:
    share = None if options.max_cost is None else options.max_cost / PartialState().num_processes
    return ApiJudge(
        model,
        options.url,
        key_variable=options.key_variable,
        cache=options.cache,
        prices=options.prices,
        max_cost=share,
        concurrency=options.concurrency,
    )
