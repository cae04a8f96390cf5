"""Fields of `SafeSFTConfig` that go together, and those that do not."""

from collections.abc import Sequence
from typing import Any

from ..data.task_format import TaskFormat
from ..data.tasks import TASKS, format_of
from ..methods import SafetyMethod
from ..methods.registry import AUTO
from ..methods.teacher_distance import OF_LOGITS, OF_STATES, RELATIVE


def check_teacher(args: Any) -> None:
    """Check that what is said of the teacher's cache and of its memory is read.

    Args:
        args: a `SafeSFTConfig`.

    Raises:
        ValueError: when it is not.
    """
    if args.teacher_cache is not None and args.teacher == "online":
        raise ValueError("`teacher_cache` is set, but `teacher: online` reads no cache. Remove one of them.")
    cached = args.teacher == "cached" or args.teacher_cache is not None
    if cached and args.teacher_memory != args.__dataclass_fields__["teacher_memory"].default:
        raise ValueError(
            f"`teacher_memory={args.teacher_memory!r}` has no effect on a cached teacher, which keeps everything on "
            "disk. Remove it, or set `teacher: online`."
        )


def check_divergences(args: Any, terms: Sequence[tuple[type[SafetyMethod], float | str]]) -> None:
    """Check that each method can take the distance to the aligned model that is asked for.

    Args:
        args: a `SafeSFTConfig`.
        terms: its methods, each with its weight.

    Raises:
        ValueError: for the first that cannot; the message names field, method and remedy.
    """
    is_auto = any(weight == AUTO for _, weight in terms)
    for method, _ in terms:
        divergence = method.divergence_of(args)
        if is_auto and method.has_budget and divergence == "squared" and args.safety_budget is None:
            raise ValueError(
                "`safety_weight: auto` has no budget for `teacher_divergence: squared`, whose unit is the model's "
                "own. Set `safety_budget`, or choose another divergence."
            )
        if args.teacher_temperature != 1.0 and divergence in (*OF_LOGITS, *OF_STATES):
            raise ValueError(
                f"`teacher_temperature={args.teacher_temperature!r}` has no effect on the squared distance of "
                f"`{method.name}`. Set `teacher_divergence` to kl, reverse_kl or jsd."
            )
        if divergence in RELATIVE and not method.needs_replay:
            raise ValueError(
                f"`teacher_divergence={divergence!r}` is a share of the aligned model's logits on replayed rows, "
                f"and `{method.name}` replays none. Set it to kl, reverse_kl, jsd or squared."
            )
        if divergence in OF_STATES and not method.needs_task_states:
            raise ValueError(
                f"`teacher_divergence={divergence!r}` is the distance of hidden states on the task's rows, and "
                f"`{method.name}` compares outputs on replayed ones. Set it to kl, or choose `lwf` alone."
            )


def check_task_format(args: Any) -> None:
    """Check the format that safety rows are to wear, as far as it is given.

    Args:
        args: a `SafeSFTConfig`.

    Raises:
        ValueError: when it is no format, or no row is to wear it.
    """
    template = args.safety_task_template
    if template is None:
        return
    format_of(str(template), f"`safety_task_template={template!r}`")
    if not args.safety_rows_in_task_format:
        raise ValueError(
            f"`safety_task_template={template!r}` has no effect. Set `safety_rows_in_task_format`, such as 0.5."
        )


def task_format(args: Any) -> TaskFormat | None:
    """Return which safety rows wear the format of the task; None for none.

    Args:
        args: a `SafeSFTConfig`.

    Raises:
        ValueError: when some are to wear it, and it is not known.
    """
    share, template = args.safety_rows_in_task_format, args.safety_task_template
    if not share:
        return None
    if template is None:
        raise ValueError(
            f"`safety_rows_in_task_format={share!r}` needs the format of the task. Set `safety_task_template` to a "
            f"task ({', '.join(TASKS)}), or to the format of your rows, such as 'Summarise this: {{request}}'."
        )
    return TaskFormat(format_of(str(template), "`safety_task_template`"), share, args.seed)
