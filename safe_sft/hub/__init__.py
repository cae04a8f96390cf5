"""What goes to the Hub: a model's card, its safety numbers, and repositories of importance and teachers."""

from .eval_results import write_eval_results
from .push import push_folder
from .safety import SAFETY_FILE, failed_checks, read_safety, write_safety

__all__ = ["SAFETY_FILE", "failed_checks", "push_folder", "read_safety", "write_eval_results", "write_safety"]
