"""Weights that training leaves alone: those of the aligned model under an adapter, or of layers that are frozen."""

import torch
from torch import Tensor, nn

from ..models.adapters import of_adapter
from ..models.fingerprint import sample
from ..models.parts import is_quantised
from ..models.sharding import is_sharded


class FrozenWeights:
    """Which weights were frozen when the methods read the aligned model, and a few values of each.

    Args:
        model: the model that they read.
    """

    def __init__(self, model: nn.Module):
        frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
        self._names = frozenset(frozen)
        self._samples = {n: sample(w).clone() for n, w in frozen.items() if _is_plain(w) and not of_adapter(n)}

    def require_frozen(self, model: nn.Module) -> None:
        """Check that none of them is trained.

        Raises:
            ValueError: naming a weight that has been unfrozen since.
        """
        unfrozen = [name for name, weight in model.named_parameters() if weight.requires_grad and name in self._names]
        if unfrozen:
            raise ValueError(
                f"{len(unfrozen)} weights, such as '{unfrozen[0]}', were frozen when the trainer read the aligned "
                "model, and are trained now: the safety terms would be measured from a model that moves. Unfreeze "
                "them before you make the trainer."
            )

    def require_unchanged(self, model: nn.Module) -> None:
        """Check that nothing has written into them, by a few values of each; not where they are sharded or quantised.

        Raises:
            ValueError: naming a weight that has other values.
        """
        for name, weight in model.named_parameters():
            kept = self._samples.get(name)
            if kept is not None and _is_plain(weight) and kept.dtype == weight.dtype and not _equal(kept, weight):
                raise ValueError(
                    f"The weight '{name}' is frozen, and something has changed it since the trainer read the aligned "
                    "model: what the safety terms protect is no longer that model. Look for a callback that writes "
                    "into the weights; change them before you make the trainer."
                )


def _is_plain(weight: Tensor) -> bool:
    return not (is_sharded(weight) or is_quantised(weight) or weight.is_meta)  # `device_map` leaves some on a disk


def _equal(kept: Tensor, weight: Tensor) -> bool:
    found = sample(weight)
    return found.shape == kept.shape and torch.equal(found.nan_to_num(), kept.nan_to_num())
