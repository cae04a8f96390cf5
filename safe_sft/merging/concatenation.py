"""The linear merge of two LoRA adapters of one base, everywhere or only where SafeMERGE merges.

    (1 − t)·s₁·B₁·A₁ + t·s₂·B₂·A₂  =  [(1 − t)·s₁·B₁, t·s₂·B₂] · [A₁; A₂]

This is exact, and the combination that PEFT's `add_weighted_adapter` calls `cat`. PEFT needs the base model with both
adapters in memory, one weight for all layers, and gets the scale wrong for rsLoRA; here two files become one, without
reading the base.

SafeMERGE (https://arxiv.org/abs/2503.17239) joins the safe adapter to the tuned one only where the tuned one's update
leaves what alignment changed; elsewhere the tuned adapter stays alone, with its own rank.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ..models.folders import ADAPTER, ADAPTER_CONFIG
from ..storage.writing import write_json
from .adapter import Adapter, warn_of_other_base
from .alignment import AdapterUpdates
from .base import Merge
from .loadable import check_adapter_on
from .side import Side
from .writer import Entry


@final
class AdapterConcatenation(Merge):
    """Two adapters become one, whose rank is the sum of theirs.

    Args:
        aligned: the adapter at weight 0: the aligned or the safe one.
        tuned: the tuned adapter, of the same base.
        base: the model that both belong to.
        updates: where the tuned adapter's updates leave alignment, for a merge of those alone; None merges all.
        threshold: threshold of these updates' cosine.

    Raises:
        ValueError: when an adapter holds more than pairs of factors, or the two do not fit one base.
    """

    stem, library = ADAPTER, "peft"

    def __init__(
        self,
        aligned: Adapter,
        tuned: Adapter,
        base: Side,
        updates: AdapterUpdates | None = None,
        threshold: float = 0.0,
    ):
        self._adapters, self._base, self._updates = (aligned, tuned), base, updates
        warn_of_other_base(tuned, base.label)
        for adapter in self._adapters:
            self._refuse_extras(adapter)
        every = list(dict.fromkeys([*tuned.pairs, *aligned.pairs]))
        self.names = every if updates is None else list(tuned.pairs)
        self._joined = frozenset(every) if updates is None else updates.leaving(threshold)
        for name in self.names:
            shapes = {self._outer_shape(adapter, name) for adapter in self._held(name)}
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
        shares = dict(zip(self._adapters, (1 - weight, weight) if name in self._joined else (0.0, 1.0), strict=True))
        for adapter in self._held(name):
            pair = adapter.pairs[name]
            part = adapter.read(pair.a) if is_a else adapter.read(pair.b).double() * (shares[adapter] * pair.scaling)
            parts.append(part)
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
        """Check that the adapter loads on the model that both belong to."""
        check_adapter_on(self._base, folder, self._adapters[1].label)

    def report(self) -> dict[str, Any]:
        """Return where the tuned adapter's updates leave alignment, and so were merged; empty where all are."""
        return {} if self._updates is None else self._updates.report()

    def _held(self, name: str) -> list[Adapter]:
        """Return the adapters whose factors make those of a weight."""
        merged = self._adapters if name in self._joined else self._adapters[1:]
        return [adapter for adapter in merged if name in adapter.pairs]

    def _keys(self, name: str) -> tuple[str, str]:
        pair = self._held(name)[-1].pairs[name]
        return pair.a, pair.b

    def _shapes(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Return the shapes of one pair of factors, and the rank of all of them together."""
        held = self._held(name)
        first = held[0]
        rank = sum(adapter.shape(adapter.pairs[name].a)[0] for adapter in held)
        return first.shape(first.pairs[name].a), first.shape(first.pairs[name].b), rank

    def _outer_shape(self, adapter: Adapter, name: str) -> tuple[int, ...]:
        a, b = adapter.shape(adapter.pairs[name].a), adapter.shape(adapter.pairs[name].b)
        return (b[0], *a[1:])

    def _dtype(self, name: str) -> torch.dtype:
        last = self._held(name)[-1]
        return last.dtype(last.pairs[name].b)

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
