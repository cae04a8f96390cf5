"""Which checkpoints are complete: what was being written when a run was killed is passed over, and said."""

import os
import re
from pathlib import Path

from accelerate.logging import get_logger
from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME

from ..storage.json_object import read_json_file

logger = get_logger(__name__)

#: What may be given as `resume_from_checkpoint`.
Asked = str | os.PathLike[str] | bool | None
#: Files of a checkpoint, and what they are the state of.
_STATES = {"optimizer.pt": "optimizer", "scheduler.pt": "scheduler"}
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def newest_checkpoint(output_dir: str, *, warn: bool = True) -> str | None:
    """The newest complete checkpoint in `output_dir`, or None.

    Args:
        output_dir: folder of the run.
        warn: whether to name each that is newer and incomplete.
    """
    folder = Path(output_dir)
    found = [
        (int(m[1]), p) for p in folder.glob("checkpoint-*") if p.is_dir() and (m := _CHECKPOINT.fullmatch(p.name))
    ]
    for _, path in sorted(found, reverse=True):
        problem = what_is_missing(path)
        if problem is None:
            return str(path)
        if warn:
            logger.warning(f"The checkpoint {path} is incomplete ({problem}), and is passed over.")
    return None


def checkpoint_of(asked: Asked, output_dir: str) -> str | None:
    """Decide which checkpoint a run goes on from; None where it begins anew.

    Args:
        asked: `resume_from_checkpoint`: a folder, True or `true` for the newest complete checkpoint, or nothing.
        output_dir: folder of the run.

    Raises:
        ValueError: when the checkpoint is not complete, or there is none.
    """
    asked = os.fspath(asked) if isinstance(asked, os.PathLike) else asked
    asked = {"true": True, "false": None, "": None}.get(str(asked or "").lower(), asked)
    if not isinstance(asked, str):
        newest = newest_checkpoint(output_dir) if asked else None
        if asked and newest is None:
            raise ValueError(
                f"`resume_from_checkpoint: true` finds no complete checkpoint in `output_dir={output_dir!r}` "
                f"(looked in {Path.cwd()}). Remove it to train from the beginning."
            )
        return newest
    require_complete(asked)
    return asked


def resumable(asked: Asked, output_dir: str) -> str | None:
    """Decide which checkpoint `Trainer` goes on from, and warn of what it does not hold.

    Args:
        asked: as for `checkpoint_of`.
        output_dir: folder of the run.

    Raises:
        ValueError: when the checkpoint is not complete, or there is none.
    """
    checkpoint = checkpoint_of(asked, output_dir)
    if checkpoint is not None:
        say_what_starts_anew(checkpoint)
    return checkpoint


def how_to_go_on(output_dir: str) -> str:
    """Say how a run that was stopped goes on.

    Args:
        output_dir: folder of the run.
    """
    kept = newest_checkpoint(output_dir)
    if kept is not None:
        return f"Go on from '{kept}' with the same command and `--resume_from_checkpoint true`."
    return (
        f"There is no checkpoint in '{output_dir}': start again. With `--save_on_signal true` a stopped run saves one."
    )


def require_complete(checkpoint: str) -> None:
    """Refuse a checkpoint that was not written to its end.

    Args:
        checkpoint: folder of the checkpoint.

    Raises:
        ValueError: naming what is missing or damaged.
    """
    if not Path(checkpoint).is_dir():
        raise ValueError(
            f"`resume_from_checkpoint={checkpoint!r}` is no folder (looked in {Path.cwd()}). Check the path, or write "
            "`resume_from_checkpoint: true` for the newest checkpoint of the run."
        )
    problem = what_is_missing(Path(checkpoint))
    if problem is not None:
        raise ValueError(
            f"The checkpoint '{checkpoint}' cannot be resumed from: {problem}. It was probably being written when its "
            "run was killed. Resume from the one before, or with `resume_from_checkpoint: true`, which finds it."
        )


def what_is_missing(checkpoint: Path) -> str | None:
    """What keeps a checkpoint from being complete, in words; None where nothing does.

    `Trainer` writes its state last, so that a checkpoint without it is not complete.

    Args:
        checkpoint: folder of the checkpoint.
    """
    try:
        state = read_json_file(checkpoint / TRAINER_STATE_NAME, "Resume from another checkpoint.")
        int(state["global_step"])
    except FileNotFoundError:
        return f"{TRAINER_STATE_NAME} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{TRAINER_STATE_NAME} is damaged"
    for path in sorted(checkpoint.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as handle:
                handle.keys()
        except (SafetensorError, OSError):
            return f"{path.relative_to(checkpoint)} is damaged"
    return None


def step_of(checkpoint: str) -> int:
    """Return the optimizer step at which a complete checkpoint was saved.

    Args:
        checkpoint: folder of the checkpoint.
    """
    state = read_json_file(Path(checkpoint) / TRAINER_STATE_NAME, "Resume from another checkpoint.")
    return int(state["global_step"])


def say_what_starts_anew(checkpoint: str) -> None:
    """Warn of what a checkpoint does not hold and `Trainer` starts anew without a word.

    Args:
        checkpoint: folder of a checkpoint that was written by one process or under DDP.
    """
    names = {path.name for path in Path(checkpoint).iterdir()}
    if any(name.startswith(("optimizer_", "global_step", "pytorch_model_fsdp")) for name in names):
        return  # FSDP and DeepSpeed keep theirs in folders
    lacking = [what for name, what in _STATES.items() if name not in names]
    if lacking:
        logger.warning(
            f"{checkpoint} holds no state of the {' and the '.join(lacking)}: what follows differs from an "
            "uninterrupted run. Save checkpoints without `save_only_model` to resume exactly."
        )
