"""The sides of a merge: models and adapters, each looked up once by its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from ..models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter, locate, read_json, same_model
from ..models.opening import own_file


@final
class Side:
    """A model or an adapter; one of the Hub is looked up once, when it is first used.

    Args:
        label: folder or Hub name, as the user wrote it.
    """

    def __init__(self, label: str):
        self.label = label
        self._folder: Path | None = None
        self._has_weights = False

    @property
    def folder(self) -> Path:
        """The local folder. The weights of a full model, which are large, may be missing: `with_weights` has them."""
        if self._folder is None:
            self._folder = locate(self.label, weights=(ADAPTER_WEIGHTS,))
        return self._folder

    def with_weights(self) -> Path:
        """The local folder, with the weights in it.

        Called before `folder`, it spares a second look-up.
        """
        if self._folder is None or not (self._has_weights or self.is_adapter):
            self._folder, self._has_weights = locate(self.label), True
        return self.folder

    @cached_property
    def is_adapter(self) -> bool:
        """Whether it is an adapter rather than a model."""
        return is_adapter(self.folder)

    @cached_property
    def adapter_config(self) -> dict[str, Any]:
        """The content of `adapter_config.json`."""
        return read_json(own_file(self.folder, self.folder / ADAPTER_CONFIG))

    @cached_property
    def base(self) -> "Side":
        """The model that an adapter was trained on.

        Raises:
            ValueError: when the adapter does not say.
        """
        name = self.adapter_config.get("base_model_name_or_path")
        if not name:
            raise ValueError(
                f"The adapter '{self.label}' does not name its base. Set `base_model_name_or_path` in its "
                f"{ADAPTER_CONFIG}."
            )
        return Side(name)

    @property
    def revision(self) -> str | None:
        """The commit that a Hub name stands for; None for a local folder."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None


@final
@dataclass(frozen=True)
class Sides:
    """All that is merged.

    Attributes:
        aligned: the aligned model or adapter.
        tuned: the tuned one, whose layout and dtype the result has.
        further: more tuned ones.
        base: the model before alignment; None where the merge needs none.
        safe: what was tuned for safety alone; None where the merge needs none.
    """

    aligned: Side
    tuned: Side
    further: tuple[Side, ...] = ()
    base: Side | None = None
    safe: Side | None = None

    @classmethod
    def of(
        cls,
        aligned: str | Path,
        tuned: str | Path | Sequence[str | Path],
        base: str | Path | None = None,
        safe: str | Path | None = None,
    ) -> "Sides":
        """Make the sides of what the user named; `tuned` may be several, and is at least one.

        Raises:
            ValueError: when a tuned one is named twice.
        """
        names = tuned_names(tuned)
        for number, name in enumerate(names):
            if any(same_model(name, other) for other in names[:number]):
                raise ValueError(f"`tuned` names {name!r} twice, which counts once. Keep one.")
        first, *further = names
        return cls(
            Side(str(aligned)),
            Side(first),
            tuple(map(Side, further)),
            None if base is None else Side(str(base)),
            None if safe is None else Side(str(safe)),
        )

    def named(self) -> dict[str, Side]:
        """Return the sides by what they are, as the record of a merge names them."""
        named = {"aligned": self.aligned, "tuned": self.tuned}
        named |= {f"tuned_{number}": side for number, side in enumerate(self.further, start=2)}
        return named | {name: side for name, side in (("base", self.base), ("safe", self.safe)) if side is not None}


def tuned_names(tuned: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the names of one or several tuned models as a list."""
    return [str(tuned)] if isinstance(tuned, (str, Path)) else [str(name) for name in tuned]
