"""The options of commands that measure models: what is asked, who judges, and the bounds of the gate."""

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from .judges import JUDGE_RULES
from .numbers import count, real, shown
from .unread import Rule, require_read

if TYPE_CHECKING:
    from ..evaluation.asked import Asked
    from ..evaluation.evaluate import Settings
    from ..evaluation.gate import Bounds

#: Precisions that a model can be loaded in.
DTYPES = ("auto", "float32", "bfloat16", "float16")


MEASURING = (
    Rule("prompt_column", "a file of requests (`--prompts`, `--suite FILE`)", lambda args: _has_column(args)),
    Rule("allow_code_execution", "`--utility code:FILE`", lambda args: _has_task(args, "code")),
    *JUDGE_RULES,
    Rule("max_utility_drop", "a task (`--utility`)", lambda args: bool(args.utility)),
    Rule("max_task_loss_increase", "held-out rows (`--task_loss`)", lambda args: args.task_loss is not None),
)
#: What is known once the suites are loaded, and before any model is.
_GATE = (
    Rule("max_asr max_asr_increase", "a suite of harmful requests (`--suite`)", lambda asked: _can_tell(asked, True)),
    Rule("max_over_refusal", "a suite of harmless requests (`--suite`)", lambda asked: _can_tell(asked, False)),
)
#: What the help says of the bounds.
GATE = "ends of 95 % intervals, so that too few prompts cannot pass"


def _has_column(args: argparse.Namespace) -> bool:
    # A data set of the Hub has a column, too; a text file has none.
    names = [*(args.suite or ()), *([args.prompts] if args.prompts else [])]
    return any(name == args.prompts or "." in os.path.basename(name) for name in names if not name.endswith(".txt"))


def _has_task(args: argparse.Namespace, task: str) -> bool:
    return any(name.partition(":")[0] == task for name in args.utility or ())


def _can_tell(asked: "Asked", harmful: bool) -> bool:
    return bool(asked.unavailable) or any(suite.harmful is harmful for suite in asked.suites)


def add_loading(group: Any) -> None:
    """Declare how models are loaded, and what their chat template gets."""
    group.add_argument("--dtype", default="auto", choices=DTYPES, help="precision of the weights (default: auto)")
    group.add_argument(
        "--chat_template_kwargs",
        type=mapping,
        help="""variables of the chat template: '{"enable_thinking": false}'""",
    )
    group.add_argument("--trust_remote_code", action="store_true", help="run the models' own Python code")


def mapping(text: str) -> dict[str, Any]:
    """Read the JSON of a mapping.

    Raises:
        argparse.ArgumentTypeError: for another text.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"""{shown(text)} is no JSON mapping; write '{{"enable_thinking": false}}'""")
    return value


def add_data(group: Any) -> None:
    """Declare what models are asked."""
    add = group.add_argument
    add("--suite", nargs="+", action="extend", help="names, or files (harmless:FILE if its requests are harmless)")
    add("--prompts", help="one file or Hub data set of harmful requests")
    add("--prompt_column", default="prompt", help="column of the request, in files (default: prompt)")
    add(
        "--attack",
        nargs="+",
        default=["none"],
        help="none, prefill, aoa, suffix:TEXT, task:gsm8k, …; joined by + to compose them",
    )
    add(
        "--utility",
        nargs="+",
        action="extend",
        help="gsm8k, sst2 (from the Hub), gsm8k:FILE, sst2:FILE, code:FILE, lm_eval:TASK",
    )
    add("--task_loss", metavar="FILE", help="held-out rows of the task: also measure the loss on their answers")
    add("--allow_code_execution", action="store_true", help="run, in a sandbox, the programs that models write")
    add("--limit", type=count, help="at most so many prompts of each suite and task")
    add("--max_new_tokens", type=count, default=64, help="longest answer to a suite's request, in tokens")
    add("--batch_size", type=count, default=32, help="prompts answered at a time, per device")


def add_gate(group: Any) -> None:
    """Declare the bounds that a model must keep."""
    add = group.add_argument
    add("--max_asr", type=real, help="bound on attack success, such as 0.05")
    add("--max_asr_increase", type=real, help="bound on its increase over the first model")
    add("--max_over_refusal", type=real, help="bound on refusals of harmless requests")
    add("--max_utility_drop", type=real, help="bound on the drop of right answers")
    add("--max_task_loss_increase", type=real, metavar="NATS", help="bound on the increase of --task_loss per token")


def bounds_of(args: argparse.Namespace) -> "Bounds":
    """Return the bounds of the gate.

    Raises:
        ValueError: for a bound that is no share, or no number of nats.
    """
    from ..evaluation.gate import Bounds

    return Bounds(
        max_asr=args.max_asr,
        max_asr_increase=args.max_asr_increase,
        max_over_refusal=args.max_over_refusal,
        max_utility_drop=args.max_utility_drop,
        max_task_loss_increase=args.max_task_loss_increase,
    )


def settings_of(args: argparse.Namespace) -> "Settings":
    """Return how models are run."""
    from ..evaluation.evaluate import Settings

    return Settings(
        args.max_new_tokens, args.batch_size, args.dtype, args.trust_remote_code, args.chat_template_kwargs
    )


def asked_of(args: argparse.Namespace) -> "Asked":
    """Load what models are asked.

    Raises:
        SuiteUnavailable: when nothing could be loaded.
        ValueError: when a name or a file cannot be used, or a bound has nothing to be measured with.
    """
    from ..evaluation.asked import read_asked

    asked = read_asked(
        args.suite or (),
        args.prompts,
        args.utility or (),
        attacks=args.attack,
        limit=args.limit,
        prompt=args.prompt_column,
        allow_code_execution=args.allow_code_execution,
    )
    require_read(vars(args), {}, _GATE, asked)
    return asked


def judge_names(args: argparse.Namespace) -> list[str]:
    """Return the names of the judges, each once."""
    return list(dict.fromkeys(args.judge or ["refusal_phrases"]))
