"""`SafeSFTTrainer` and its parts: the step's hidden states, the safety set, the teacher, the callbacks."""

from .callbacks import SafetyEvalCallback
from .safe_sft_trainer import SafeSFTTrainer

__all__ = ["SafeSFTTrainer", "SafetyEvalCallback"]
