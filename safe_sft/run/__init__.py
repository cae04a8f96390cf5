"""A whole run, from parsed arguments to a saved model and a table: what `safe-sft train` does."""

from .build import build_teacher, build_trainer
from .gate import PushRefused
from .train import require_checkpoint, train

__all__ = ["PushRefused", "build_teacher", "build_trainer", "require_checkpoint", "train"]
