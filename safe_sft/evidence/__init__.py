"""What a run can be held to: bounds that were set before it, what it did and measured, a digest of every file."""

from .attach import attach
from .record import Record
from .scope import EVALUATION, MERGE, REPAIR, TRAINING
from .strict import EvidenceError, Mismatch
from .verify import Verified, accept_texts, verify

__all__ = [
    "EVALUATION",
    "MERGE",
    "REPAIR",
    "TRAINING",
    "EvidenceError",
    "Mismatch",
    "Record",
    "Verified",
    "accept_texts",
    "attach",
    "verify",
]
