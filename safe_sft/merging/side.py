"""One side of a merge: a model or an adapter, looked up once by its name."""

from functools import cached_property
from pathlib import Path
from typing import Any, final

from ..models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter, locate, read_json
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
