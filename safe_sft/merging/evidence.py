"""What a merge can be held to: of which models it was made and how; it measures nothing, and its evidence says so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evaluation.output.evidence import measured_content, phrases_judge
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
        begins: whether a chain begins here, whatever evidence the sides have.

    Attributes:
        chosen: how a sweep chose the weight, as plain JSON values; None where none did.

    Raises:
        EvidenceError: when one of them is not what its evidence says.
    """

    def __init__(self, sides: Sides, *, begins: bool = False):
        self._digests = Digests()
        self._sides = sides
        self._known: dict[str, str] = {}
        self._stated: Record | None = None
        self.chosen: Mapping[str, Any] | None = None
        self._weights = {role: self._weights_of(side) for role, side in sides.named().items()}
        named = [(role, side, self._weights[role]) for role, side in sides.named().items()]
        self._origins = [
            Origin(role, str(portable(side.label)), weights)
            if begins
            else origin_of(role, side.label, weights, side.folder, self._digests)
            for role, side, weights in named
        ]

    def begin(self, folder: Path, max_asr: float, data: Mapping[str, Any]) -> None:
        """Write the bound by which a sweep chooses, before anything is measured.

        Args:
            folder: folder of the sweep, in which it stays until the merge is written.
            max_asr: most that the attack success rate of the chosen merge may be, as it is estimated.
            data: what the merges are asked, as plain JSON values.
        """
        decision = {
            "decides": "which merge is written",
            "by": "sweep",
            "bound": "max_asr",
            "limit": max_asr,
            "compares": "the estimate of attack success, of which its interval is not asked",
        }
        self._stated = Record(folder, MERGE, self._digests)
        self._stated.state({"decisions": [decision], **data, "judges": [phrases_judge()]}, origins=self._origins)

    def write(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        """Write it beside the merge.

        Args:
            folder: folder of the merged model or adapter, with all that belongs to it.
            arguments: what was merged and how, as `merge_config.json` has it.
        """
        if self._stated is None:
            record = Record(folder, MERGE, self._digests)
            record.state({"decisions": [], "suites": [], "tasks": [], "judges": []}, origins=self._origins)
        else:
            record = self._stated.copied_to(folder)
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
        content = {**measured_content({}, record.statement_digest), "weights": weights}
        if self.chosen is not None:
            content["choice"] = portable(self.chosen)
        record.seal({RUN: dict(portable(run)), MEASURED: content})

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
