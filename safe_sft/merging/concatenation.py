"""The linear merge of two LoRA adapters of one base, without reading the base.

    (1 − t)·s₁·B₁·A₁ + t·s₂·B₂·A₂  =  [(1 − t)·s₁·B₁, t·s₂·B₂] · [A₁; A₂]

This is exact, and the combination that PEFT's `add_weighted_adapter` calls `cat`. PEFT needs the base model with both
adapters in memory, one weight for all layers, and gets the scale wrong for rsLoRA; here two files become one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..models.folders import ADAPTER, ADAPTER_CONFIG
from ..storage.writing import write_json
from .adapter import Adapter, warn_of_other_base
from .base import Merge
from .loadable import check_adapter_on
from .writer import Entry


@final
class AdapterConcatenation(Merge):
    """Two adapters become one, whose rank is the sum of theirs.

    Args:
        aligned: the aligned adapter.
        tuned: the tuned adapter, of the same base.

    Raises:
        ValueError: when an adapter holds more than pairs of factors, or the two do not fit one base.
    """

    stem, library = ADAPTER, "peft"

    def __init__(self, aligned: Adapter, tuned: Adapter):
        self._adapters = (aligned, tuned)
        warn_of_other_base(tuned, aligned.side.base.label)
        for adapter in self._adapters:
            self._refuse_extras(adapter)
        self.names = list(dict.fromkeys([*tuned.pairs, *aligned.pairs]))
        for name in self.names:
            shapes = {self._outer_shape(adapter, name) for adapter in self._adapters if name in adapter.pairs}
            if len(shapes) > 1:
                raise ValueError(
                    f"The adapters change '{name}' in different shapes: {' and '.join(map(str, sorted(shapes)))}. "
                    "Merge adapters of one base model."
                )

    def entries(self, dtype: torch.dtype | None) -> dict[Entry, str]:
        """Return the concatenated factors."""
        entries = {}
        for name in self.names:
            a, b, rank = self._shapes(name)
            own = dtype or self._dtype(name)
            key_a, key_b = self._keys(name)
            entries[Entry(key_a, (rank, *a[1:]), own)] = name
            entries[Entry(key_b, (b[0], rank, *b[2:]), own)] = name
        return entries

    def blocks(self, entry: Entry, name: str, weight: float) -> Iterable[Tensor]:
        """Yield a concatenated factor."""
        is_a, parts = entry.name == self._keys(name)[0], []
        for adapter, share in zip(self._adapters, (1 - weight, weight), strict=True):
            pair = adapter.pairs.get(name)
            if pair is not None:
                parts.append(adapter.read(pair.a) if is_a else adapter.read(pair.b).double() * (share * pair.scaling))
        return [torch.cat([part.to(entry.dtype) for part in parts], dim=0 if is_a else 1)]

    def write_configuration(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Write the tuned adapter's configuration, with the new ranks and scale 1, since `B` holds the scale."""
        ranks = {name.removesuffix(".weight"): self._shapes(name)[2] for name in self.names}
        common = max(ranks.values(), key=list(ranks.values()).count)
        others = {layer: rank for layer, rank in ranks.items() if rank != common}
        config = {
            **self._adapters[1].config,
            "r": common,
            "lora_alpha": common,
            "rank_pattern": others,
            "alpha_pattern": others,
            "use_rslora": False,
            "target_modules": sorted(ranks),
            "layers_to_transform": None,
            "layers_pattern": None,
            "exclude_modules": None,
        }
        write_json(folder / ADAPTER_CONFIG, config)

    def check_loads(self, folder: Path) -> None:
        """Check that the adapter loads on the aligned adapter's base."""
        aligned, tuned = self._adapters
        check_adapter_on(aligned.side.base, folder, tuned.label)

    def _keys(self, name: str) -> tuple[str, str]:
        pair = next(a.pairs[name] for a in reversed(self._adapters) if name in a.pairs)
        return pair.a, pair.b

    def _shapes(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Return the shapes of one pair of factors, and the rank of all of them together."""
        held = [a for a in self._adapters if name in a.pairs]
        first = held[0]
        rank = sum(adapter.shape(adapter.pairs[name].a)[0] for adapter in held)
        return first.shape(first.pairs[name].a), first.shape(first.pairs[name].b), rank

    def _outer_shape(self, adapter: Adapter, name: str) -> tuple[int, ...]:
        a, b = adapter.shape(adapter.pairs[name].a), adapter.shape(adapter.pairs[name].b)
        return (b[0], *a[1:])

    def _dtype(self, name: str) -> torch.dtype:
        dtypes = [a.dtype(a.pairs[name].b) for a in reversed(self._adapters) if name in a.pairs]
        return dtypes[0]

    def _refuse_extras(self, adapter: Adapter) -> None:
        pairs = {key for pair in adapter.pairs.values() for key in (pair.a, pair.b)}
        extras = [key for key in adapter.keys if key not in pairs]
        extras += adapter.config.get("target_parameters") or []
        if extras:
            raise ValueError(
                f"The adapter '{adapter.label}' holds more than LoRA factors of modules "
                f"('{extras[0]}'), so two adapters cannot become one. Merge each into the base with "
                "PEFT's `merge_and_unload()`, save both models, and pass them as full ones."
            )
