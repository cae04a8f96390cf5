"""What a weight penalty is taken over, and how much each weight matters: estimated, saved and loaded."""

from .anchoring import anchor_space
from .build import build_importance, discard_partial, load_importance
from .file import NORMALIZATIONS, Importance
from .objective import ESTIMATORS
from .shared import shared_importance
from .sizes import SpaceSizes, space_sizes
from .space import SPACES, AnchoredSpace

__all__ = [
    "ESTIMATORS",
    "NORMALIZATIONS",
    "SPACES",
    "AnchoredSpace",
    "Importance",
    "SpaceSizes",
    "anchor_space",
    "build_importance",
    "discard_partial",
    "load_importance",
    "shared_importance",
    "space_sizes",
]
