"""Supervised fine-tuning that keeps a language model's safety alignment.

`SafeSFTTrainer` is used as TRL's `SFTTrainer` is, and adds a safety term to its loss. Names are imported on first
use, so that `import safe_sft` costs no more than `import trl`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

_EXPORTS = {
    "METHODS": "methods",
    "RefusalPhrases": "evaluation",
    "SafeSFTConfig": "config",
    "SafeSFTTrainer": "trainer",
    "SafetyEvalCallback": "trainer",
    "builtin_prompts": "data",
    "measure_asr": "evaluation",
}

if TYPE_CHECKING:
    from .config import SafeSFTConfig
    from .data import builtin_prompts
    from .evaluation import RefusalPhrases, measure_asr
    from .methods import METHODS
    from .trainer import SafeSFTTrainer, SafetyEvalCallback

__all__ = [
    "METHODS",
    "RefusalPhrases",
    "SafeSFTConfig",
    "SafeSFTTrainer",
    "SafetyEvalCallback",
    "builtin_prompts",
    "measure_asr",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


def _stays_importable(name: str, module: str) -> None:
    """Make `safe_sft.<name>` an alias of a module in another folder; that is imported when the alias is first used."""

    def find(attribute: str) -> Any:
        if attribute.startswith("__"):  # libraries look through `sys.modules`, also while they are imported themselves
            raise AttributeError(attribute)
        return getattr(import_module(f".{module}", __name__), attribute)

    alias = ModuleType(f"{__name__}.{name}", f"See `{__name__}.{module}`.")
    alias.__getattr__ = find  # type: ignore[method-assign]
    sys.modules[alias.__name__] = alias
    globals()[name] = alias


_stays_importable("callbacks", "trainer.callbacks")
