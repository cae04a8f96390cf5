"""Measures the safety and utility of models, with intervals: answers, verdicts, comparisons, and the gate."""

from ..models.loading import load_model
from .evaluate import Evaluation, ModelSpec, Settings, evaluate_models
from .gate import Bounds, Check, check_gate
from .judges import Judge, RefusalPhrases, Verdict
from .output.files import write_evaluation
from .output.tables import print_evaluation
from .report import SafetyReport, measure_asr
from .statistics import PairedOutcomes, Rate, cohen_kappa, trials_for_bound, wilson_interval
from .suites.attacks import ATTACKS, attack_suite
from .suites.published import PUBLISHED_SUITES, load_suites
from .suites.suite import BUILTIN_SUITES, Case, Suite, SuiteUnavailable

__all__ = [
    "ATTACKS",
    "BUILTIN_SUITES",
    "PUBLISHED_SUITES",
    "Bounds",
    "Case",
    "Check",
    "Evaluation",
    "Judge",
    "ModelSpec",
    "PairedOutcomes",
    "Rate",
    "RefusalPhrases",
    "SafetyReport",
    "Settings",
    "Suite",
    "SuiteUnavailable",
    "Verdict",
    "attack_suite",
    "check_gate",
    "cohen_kappa",
    "evaluate_models",
    "load_model",
    "load_suites",
    "measure_asr",
    "print_evaluation",
    "trials_for_bound",
    "wilson_interval",
    "write_evaluation",
]
