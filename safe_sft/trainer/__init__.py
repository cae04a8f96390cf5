"""`SafeSFTTrainer`, and what is its alone: the step's states, the safety set, the teacher, the callbacks."""

from .callbacks import SafetyEvalCallback
from .safe_sft_trainer import SafeSFTTrainer

__all__ = ["SafeSFTTrainer", "SafetyEvalCallback"]
