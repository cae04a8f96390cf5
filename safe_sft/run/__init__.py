"""A whole run, from parsed arguments to a saved model and a table: what `safe-sft train` does."""

from .build import Run, build_run, build_teacher
from .gate import PushRefused
from .train import train

__all__ = ["PushRefused", "Run", "build_run", "build_teacher", "train"]
