"""What a recipe may say: how to train, on which data, and how recipes extend each other."""

from .safe_sft_config import SafeSFTConfig
from .script_arguments import SafeScriptArguments

__all__ = ["SafeSFTConfig", "SafeScriptArguments"]
