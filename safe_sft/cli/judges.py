"""The options of judges, which several commands take."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from .numbers import count, real
from .unread import Rule

#: Where the key of an API is, unless another variable is named.
DEFAULT_KEY = "OPENAI_API_KEY"


def _is_judge(*kinds: str) -> Callable[[Any], bool]:
    return lambda args: any(name.partition(":")[0] in kinds for name in args.judge or ())


JUDGE_RULES = (
    Rule("judge_labels", "`--judge classifier:MODEL`", _is_judge("classifier")),
    Rule("judge_batch_size", "a judge that is a model (`classifier:`, `guard:`)", _is_judge("classifier", "guard")),
    Rule(
        "judge_url judge_key_variable judge_max_cost judge_prices judge_concurrency",
        "`--judge api:MODEL`",
        _is_judge("api"),
    ),
)


#: Which judges there are, for the help.
JUDGES = "classifier:MODEL, guard:FAMILY[=MODEL], api:MODEL"


def add_judges(group: Any, names: str = f"refusal_phrases (default), {JUDGES}") -> None:
    """Declare the options.

    Args:
        group: parser, or group of it.
        names: which judges there are, for the help.
    """
    add = group.add_argument
    add("--judge", nargs="+", help=names)
    add("--judge_labels", nargs="+", default=[], metavar="LABEL=VERDICT", help="verdict of each label of a classifier")
    add("--judge_batch_size", type=count, default=16, help="answers at a time, of judges that are models")
    add("--judge_url", default="https://api.openai.com/v1", help="address of the API")
    add("--judge_key_variable", default=DEFAULT_KEY, help="environment variable that holds its key")
    add("--judge_max_cost", type=real, help="cap on the API's cost, in US dollars; needs --judge_prices")
    add("--judge_prices", type=real, nargs=2, metavar="USD", help="of a million input and output tokens")
    add("--judge_concurrency", type=int, default=8, help="requests at a time")


def judges_of(args: argparse.Namespace, default: tuple[str, ...] = ("refusal_phrases",)) -> list[Callable[[], Any]]:
    """Return functions that make the judges: names are checked now, models are loaded when they are needed.

    Args:
        args: the options.
        default: names of the judges where none is given.

    Raises:
        ValueError: for a name or an option that cannot be used.
    """
    from ..evaluation.judges.api import Prices
    from ..evaluation.judges.names import JudgeOptions, judge_maker

    malformed = [text for text in args.judge_labels if "=" not in text]
    if malformed:
        raise ValueError(
            f"`--judge_labels {malformed[0]}` is not of the form LABEL=VERDICT, such as REJECTION=refused."
        )
    names = [text.partition("=")[0] for text in args.judge_labels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"`--judge_labels` gives `{twice}` {names.count(twice)} verdicts. Keep one.")
    key = args.judge_key_variable
    if key != DEFAULT_KEY and key not in os.environ:
        raise ValueError(
            f"`--judge_key_variable {key}` is no variable of the environment, so no key would be sent. Export it, or "
            "leave the flag out for an address that needs no key."
        )
    if args.judge_max_cost is not None and args.judge_prices is None:
        raise ValueError(f"`--judge_max_cost {args.judge_max_cost}` needs `--judge_prices` to reckon with. Give both.")
    options = JudgeOptions(
        labels=dict(text.split("=", 1) for text in args.judge_labels),
        batch_size=args.judge_batch_size,
        url=args.judge_url,
        key_variable=args.judge_key_variable,
        cache=os.path.join(args.output, "cache", "judge") if args.output else None,
        prices=Prices(*args.judge_prices) if args.judge_prices else None,
        max_cost=args.judge_max_cost,
        concurrency=args.judge_concurrency,
    )
    return [judge_maker(name, options) for name in dict.fromkeys(args.judge or default)]
