"""Judges say what an answer is: complied or refused. Each is one class; `names.judge_maker` finds one by name."""

from .base import Judge, Verdict
from .refusal_phrases import REFUSAL_PHRASES, RefusalPhrases

__all__ = ["REFUSAL_PHRASES", "Judge", "RefusalPhrases", "Verdict"]
