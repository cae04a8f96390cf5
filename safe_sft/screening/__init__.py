"""Looks at training rows before training: which of them the aligned model would refuse to answer so."""

from .screener import Screener, Settings
from .screening import Screening, screen
from .spool import Spool

__all__ = ["Screener", "Screening", "Settings", "Spool", "screen"]
