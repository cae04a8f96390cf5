"""What a merge can be held to: of which models it was made and how; it measures nothing, and its evidence says so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evaluation.output.evidence import measured_content
from ..evidence import MERGE, Record
from ..evidence.digests import Digests, folder_weights, package_digest
from ..evidence.inputs import origin_of
from ..evidence.origin import Origin
from ..evidence.plain import portable
from ..evidence.record import MEASURED, RUN
from ..models.folders import is_adapter
from ..version import __version__
from .side import Side, Sides


class MergeEvidence:
    """The evidence of a merge, which goes on from that of its sides.

    Args:
        sides: the models and adapters, which are here as far as the merge reads them.

    Raises:
        EvidenceError: when one of them is not what its evidence says.
    """

    def __init__(self, sides: Sides):
        self._digests = Digests()
        self._sides = sides
        self._known: dict[str, str] = {}
        self._weights = {role: self._weights_of(side) for role, side in sides.named().items()}
        self._origins: list[Origin] = [
            origin_of(role, side.label, self._weights[role], side.folder, self._digests)
            for role, side in sides.named().items()
        ]

    def write(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        """Write it beside the merge.

        Args:
            folder: folder of the merged model or adapter, with all that belongs to it.
            arguments: what was merged and how, as `merge_config.json` has it.
        """
        record = Record(folder, MERGE, self._digests)
        record.state({"decisions": [], "suites": [], "tasks": [], "judges": []}, origins=self._origins)
        models = {
            role: {"name": side.label, "weights": self._weights[role]} for role, side in self._sides.named().items()
        }
        run = {
            "merge": {name: value for name, value in arguments.items() if name not in ("decided", *models)},
            "models": models,
            "training_steps": 0,
            "code": {"safe_sft": __version__, "sha256": package_digest()},
        }
        weights = {
            "model": "merged",
            "folder": "",
            "base": self._base(folder),
            "sha256": folder_weights(folder, self._digests),
        }
        record.seal(
            {RUN: dict(portable(run)), MEASURED: {**measured_content({}, record.statement_digest), "weights": weights}}
        )

    def _base(self, folder: Path) -> str | None:
        """Return the weights of the base of a merge that is an adapter; None for a full model."""
        if not is_adapter(folder):
            return None
        return self._own(Side(str(folder)).base)

    def _weights_of(self, side: Side) -> str:
        """Name the weights of a side; an adapter is one of the base that it is merged on."""
        own, aligned = self._own(side), self._sides.aligned
        if not side.is_adapter:
            return own
        return f"{self._own(side.base if aligned.is_adapter else aligned)} + {own}"

    def _own(self, side: Side) -> str:
        """Name the weights of a model or an adapter alone; each is looked up once."""
        if side.label not in self._known:
            of_hub = side.revision is not None and not Path(side.label).is_dir()
            own = f"{side.label}@{side.revision}" if of_hub else folder_weights(side.folder, self._digests)
            self._known[side.label] = own or "unknown"
        return self._known[side.label]
