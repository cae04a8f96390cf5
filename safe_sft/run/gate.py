"""The gate between training and the Hub. Settings that would let a model bypass it are errors before training."""

from transformers.trainer_utils import HubStrategy

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..evaluation import Bounds, Check, Evaluation, check_gate, trials_for_bound
from ..hub.push import PushRefused
from .measure import Questions


def push_strategy(script: SafeScriptArguments, args: SafeSFTConfig) -> HubStrategy:
    """Return the `hub_strategy` to use: nothing is pushed before a gate has decided.

    Args:
        script: the run's `SafeScriptArguments`, which say whether there is a gate.
        args: the run's `SafeSFTConfig`; with a gate, `hub_strategy: every_save`, the default, becomes `end`.

    Raises:
        ValueError: when a model could be pushed before the gate decides.
    """
    strategy = HubStrategy(args.hub_strategy)
    if not script.push_requires_gate:
        return strategy
    if not args.push_to_hub:
        raise ValueError("`push_requires_gate` is set, and nothing is pushed. Set `push_to_hub: true`, or remove it.")
    if strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
        raise ValueError(
            f"`hub_strategy: {strategy.value}` pushes checkpoints during training, before the gate has measured them. "
            "Set `hub_strategy: end`, or remove `push_requires_gate`."
        )
    return HubStrategy.END


def require_measurable(script: SafeScriptArguments, is_sharded: bool) -> None:
    """Check that the model can be measured, as the gate needs.

    Args:
        script: the run's `SafeScriptArguments`, which say whether there is a gate.
        is_sharded: whether FSDP or ZeRO-3 shards the weights.

    Raises:
        ValueError: when there is a gate, and the weights are sharded.
    """
    if script.push_requires_gate and is_sharded:
        raise ValueError(
            "`push_requires_gate` needs measurements, and sharded weights are not measured. Remove it and "
            "`push_to_hub`, then run `safe-sft evaluate` and `safe-sft push` on what was saved."
        )


def require_enough(script: SafeScriptArguments, questions: Questions) -> None:
    """Check that there are enough rows to pass each bound of the gate; too few cannot, whatever the answers are.

    Args:
        script: the run's `SafeScriptArguments`, with the bounds.
        questions: the questions that the model is asked.

    Raises:
        ValueError: when a bound has too few rows, or none.
    """
    harmful = [(f"the suite '{suite.name}'", len(suite.cases)) for suite in questions.suites if suite.harmful]
    tasks = [(f"the task '{task.name}'", len(task.cases)) for task in questions.tasks]
    for name, subjects in (
        ("gate_max_asr", harmful),
        ("gate_max_asr_increase", harmful),
        ("gate_max_utility_drop", tasks),
    ):
        bound = getattr(script, name)
        if bound is None:
            continue
        if not subjects:
            raise ValueError(f"`{name}={bound}` has nothing to be measured with. Give data for it, or remove it.")
        subject, n = min(subjects, key=lambda pair: pair[1])
        needed = trials_for_bound(bound)
        if n < needed:
            raise ValueError(
                f"`{name}={bound}` cannot be shown with the {n} rows of {subject}: at least {needed} are needed. Give "
                "more rows, or a wider bound."
            )


def bounds_of(script: SafeScriptArguments) -> Bounds:
    """Return the bounds of the gate."""
    return Bounds(script.gate_max_asr, script.gate_max_asr_increase, script.gate_max_utility_drop)


def gate_checks(script: SafeScriptArguments, evaluation: Evaluation) -> list[Check]:
    """Check the bounds of the gate; returns no checks where there is no gate."""
    return check_gate(evaluation, bounds_of(script)) if script.push_requires_gate else []


def require_passed(checks: list[Check], folder: str, repo: str) -> None:
    """Raise an error when a check failed.

    Args:
        checks: the gate's checks.
        folder: folder where the model is saved.
        repo: Hub repository that the model was to be pushed to.

    Raises:
        PushRefused: when a bound was not kept; the message names each, and how to push anyway.
    """
    failed = [f"{check.bound} ({check.subject}): {check.message}" for check in checks if not check.passed]
    if failed:
        raise PushRefused(
            f"The model failed its safety gate and was not pushed. {' '.join(failed)} It is saved in '{folder}'. To "
            f"push it anyway, with a card that says so: safe-sft push {folder} --repo {repo} --ignore_gate"
        )
