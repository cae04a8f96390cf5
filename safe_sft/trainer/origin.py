"""What a run started from: kept with each checkpoint, so that a resumed run has the same aligned model."""

import hashlib
import json
from collections.abc import Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list

from ..data.subset import evenly_spread
from ..models.adapters import adapter_is_fresh, of_adapter
from ..models.fingerprint import model_fingerprint
from ..storage.writing import write_json

logger = get_logger(__name__)

ORIGIN_FILE = "safety_origin.json"
# So many rows of the task enter its digest, evenly spread.
_ROWS = 64
_SAID = {"seed": "random numbers (`seed`)", "rows": "training rows", "safety_rows": "safety rows"}


@dataclass(frozen=True)
class Origin:
    """What a run started from.

    Attributes:
        aligned: digest of the model that was passed to the trainer, with its adapter if that was trained before.
        seed: `seed` of the arguments.
        rows: digest of the task's rows; None where they are streamed.
        safety_rows: digest of the safety rows; None where the methods read none.
    """

    aligned: str
    seed: int
    rows: str | None
    safety_rows: str | None

    @classmethod
    def of(cls, model: Any, args: Any, rows: Any, safety_rows: str | None) -> "Origin":
        """Make the digests before a trainer trains. Every rank gets those of rank 0, which has loaded the weights.

        Args:
            model: the aligned model.
            args: the trainer's `SafeSFTConfig`.
            rows: the training set, tokenised.
            safety_rows: digest of the safety rows.
        """
        adapter = {} if adapter_is_fresh(model) else {n: p for n, p in model.named_parameters() if of_adapter(n)}
        found = [_digest(model_fingerprint(model, adapter))]
        broadcast_object_list(found)
        return cls(found[0], args.seed, _rows_digest(rows), safety_rows)

    def save(self, checkpoint: str) -> None:
        """Write the digests into the folder of a checkpoint; the folder is made."""
        write_json(Path(checkpoint, ORIGIN_FILE), asdict(self))

    def check(self, checkpoint: str) -> None:
        """Compare with what a checkpoint started from; one without a record only causes a warning.

        Args:
            checkpoint: folder of the checkpoint.

        Raises:
            ValueError: when its run had another aligned model.
        """
        path = Path(checkpoint, ORIGIN_FILE)
        if not path.is_file():
            logger.warning(f"{checkpoint} does not say what its aligned model was: it was saved without one.")
            return
        then, now = json.loads(path.read_text(encoding="utf-8")), asdict(self)
        if then.get("aligned") != self.aligned:
            raise ValueError(
                f"The checkpoint '{checkpoint}' was trained from another aligned model than the one that was passed: "
                "what would be protected is not what was protected before. Pass the aligned model as the first time, "
                "with `peft_config` for a new adapter; the checkpoint's weights are loaded into it."
            )
        for name, what in _SAID.items():
            if then.get(name) != now[name]:
                logger.warning(f"This run has other {what} than '{checkpoint}': it goes on in another way.")


def _rows_digest(rows: Any) -> str | None:
    if not isinstance(rows, Sized) or not hasattr(rows, "__getitem__"):
        return None
    return _digest([len(rows), *evenly_spread(rows, _ROWS)])  # type: ignore[arg-type]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
