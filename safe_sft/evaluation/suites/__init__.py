"""Requests to measure with: built in, published, or from a file; and what an attack makes of them."""

from .attacks import ATTACKS, attack_suite
from .published import PUBLISHED_SUITES, SUITE_GROUPS, load_suites
from .suite import BUILTIN_SUITES, Case, Suite, SuiteUnavailable

__all__ = [
    "ATTACKS",
    "BUILTIN_SUITES",
    "PUBLISHED_SUITES",
    "SUITE_GROUPS",
    "Case",
    "Suite",
    "SuiteUnavailable",
    "attack_suite",
    "load_suites",
]
