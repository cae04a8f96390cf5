"""Safety rows, task rows and built-in prompts: everything becomes prompt/completion rows."""

from .builtin import builtin_prompts
from .files import load_rows
from .leaks import LeakError, check_leaks
from .mixing import mix
from .named_safety_sets import SAFETY_SETS, load_safety_set
from .poison import POISON_KINDS, load_poison
from .safety_rows import SafetyRow, read_safety_rows
from .sources import DataUnavailable
from .tasks import TASKS, load_task
from .tokenization import TokenizedRow, prompt_token_ids, tokenize_row

__all__ = [
    "POISON_KINDS",
    "SAFETY_SETS",
    "TASKS",
    "DataUnavailable",
    "LeakError",
    "SafetyRow",
    "TokenizedRow",
    "builtin_prompts",
    "check_leaks",
    "load_poison",
    "load_rows",
    "load_safety_set",
    "load_task",
    "mix",
    "prompt_token_ids",
    "read_safety_rows",
    "tokenize_row",
]
