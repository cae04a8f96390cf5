"""Says how often the aligned model runs, and what is remembered of it."""

import math

from ..config.safe_sft_config import SafeSFTConfig
from ..replay import teacher_kind
from .data import Rows
from .schedule import Schedule


def has_cached_teacher(args: SafeSFTConfig, fresh: bool) -> bool:
    """Return whether the aligned model's states are kept on disk, and not computed while training."""
    return _has_teacher(args) and _kind(args, fresh) == "cached"


def has_online_teacher(args: SafeSFTConfig, fresh: bool) -> bool:
    """Return whether the aligned model runs on replayed rows while training."""
    return _has_teacher(args) and _kind(args, fresh) == "online"


def remembered_bytes(args: SafeSFTConfig, safety: Rows, state_bytes: int) -> int:
    """Return the most memory of the host that an online teacher's states take, on each device.

    Args:
        args: the run's `SafeSFTConfig`.
        safety: the safety rows; of an unknown number of them, all that may be kept are.
        state_bytes: bytes of one hidden state.
    """
    limit = int(args.teacher_memory * 2**30)
    return limit if safety.rows is None else min(limit, round(safety.rows * safety.supervised * state_bytes))


def computed_rows(args: SafeSFTConfig, schedule: Schedule, safety: Rows, state_bytes: int, fresh: bool) -> float:
    """Return how many replayed rows the aligned model runs in a step on one device, as a mean over the run.

    An online teacher runs a row that it can remember once on each device that replays it, and the others each time. In
    a pass over the rows, a device replays each with a probability of one by the number of devices. Where the number of
    rows or of steps is not known, nothing counts as remembered.

    Args:
        args: the run's `SafeSFTConfig`.
        schedule: rows and steps of the run.
        safety: the safety rows.
        state_bytes: bytes of one hidden state.
        fresh: whether the adapter is new.
    """
    if not has_online_teacher(args, fresh):
        return 0.0
    replayed = schedule.replay_rows / schedule.devices
    if not schedule.steps or not safety.rows:
        return replayed
    share = min(1.0, args.teacher_memory * 2**30 / (safety.rows * safety.supervised * state_bytes))
    rest, passes = math.modf(schedule.replay_rows * schedule.steps / safety.rows)
    missed = (1 - 1 / schedule.devices) ** passes * (1 - rest / schedule.devices)
    return share * safety.rows * (1 - missed) / schedule.steps + (1 - share) * replayed


def _has_teacher(args: SafeSFTConfig) -> bool:
    return any(method.needs_teacher for method, _ in args.safety_terms)


def _kind(args: SafeSFTConfig, fresh: bool) -> str:
    return teacher_kind(args.teacher, args.teacher_cache, switchable=fresh)
