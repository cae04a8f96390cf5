"""A whole run, from parsed arguments to a saved model and a table: what `safe-sft train` does."""

from .build import Run, build_run, build_teacher
from .gate import PushRefused
from .screen_task import TooManyFlagged
from .train import train

__all__ = ["PushRefused", "Run", "TooManyFlagged", "build_run", "build_teacher", "train"]
