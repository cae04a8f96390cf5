"""What a record goes on from: the models that a repair or a merge was made of, with the evidence that they have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..storage.writing import write_bytes
from .scope import INPUTS


@dataclass(frozen=True)
class Origin:
    """A model that another is made of.

    Attributes:
        role: what it is in that, such as `aligned`; also the name of a folder.
        name: name of the model.
        weights: which weights it has: digest of a folder's files, or name and commit of the Hub.
        head: head of the chain of its evidence; empty where it has none, so that nothing is known of how it was made.
        files: content of that evidence, by path.
    """

    role: str
    name: str
    weights: str
    head: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def entry(self) -> dict[str, str]:
        """What stands of it in the manifest."""
        return {"role": self.role, "name": self.name, "weights": self.weights, "head": self.head}

    def write(self, folder: Path) -> None:
        """Write its evidence into that of what is made of it.

        Args:
            folder: folder of the record that goes on from it.
        """
        for path, content in self.files.items():
            write_bytes(folder / INPUTS / self.role / path, content)
