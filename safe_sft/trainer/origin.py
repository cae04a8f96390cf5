"""What a run started from: kept with each checkpoint, so that a resumed run has the same aligned model."""

import hashlib
import json
from collections.abc import Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list

from ..data.subset import evenly_spread
from ..models.adapters import adapter_is_fresh, of_adapter
from ..models.fingerprint import model_fingerprint
from ..storage.json_object import read_json_file
from ..storage.writing import write_json

logger = get_logger(__name__)

ORIGIN_FILE = "safety_origin.json"
# So many rows of the task enter its digest, evenly spread.
_ROWS = 64
_REMEDY = "Resume from another checkpoint."
#: Fields of methods that say where something lies, or how it is computed, and change no update.
_WITHOUT_EFFECT = {"teacher", "teacher_cache", "teacher_memory", "importance_path", "ema_on_cpu", "ema_evaluate"}
_SAID = {"seed": "random numbers (`seed`)", "rows": "training rows", "safety_rows": "safety rows"}


@dataclass(frozen=True)
class Origin:
    """What a run started from.

    Attributes:
        aligned: digest of the model that was passed to the trainer, with its adapter if that was trained before.
        seed: `seed` of the arguments.
        rows: digest of the task's rows; None where they are streamed.
        safety_rows: digest of the safety rows; None where the methods read none.
        settings: the methods, their weights, what else they read of the arguments, and the number of processes.
    """

    aligned: str
    seed: int
    rows: str | None
    safety_rows: str | None
    settings: dict[str, Any]

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
        return cls(found[0], args.seed, _rows_digest(rows), safety_rows, _settings(args))

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
        then, now = read_json_file(path, _REMEDY), asdict(self)
        if then.get("aligned") != self.aligned:
            raise ValueError(
                f"The checkpoint '{checkpoint}' was trained from another aligned model than the one that was passed: "
                "what would be protected is not what was protected before. Pass the aligned model as the first time, "
                "with `peft_config` for a new adapter; the checkpoint's weights are loaded into it."
            )
        for name, what in _SAID.items():
            if then.get(name) != now[name]:
                logger.warning(f"This run has other {what} than '{checkpoint}': it goes on in another way.")
        before = then.get("settings", self.settings)
        for name in sorted({*before, *self.settings}):
            if before.get(name) != self.settings.get(name):
                logger.warning(
                    f"This run has {name}={self.settings.get(name)!r}, and '{checkpoint}' was trained with "
                    f"{before.get(name)!r}: it goes on in another way."
                )


def warn_of_lost_protection(checkpoint: str) -> None:
    """Say where plain fine-tuning goes on from a checkpoint that was trained with a safety method.

    Args:
        checkpoint: folder of the checkpoint.
    """
    path = Path(checkpoint, ORIGIN_FILE)
    if path.is_file():
        before = read_json_file(path, _REMEDY).get("settings", {}).get("safety_method")
        logger.warning(
            f"'{checkpoint}' was trained with {f'`safety_method={before!r}`' if before else 'a safety method'}, and "
            "this run has none: nothing is protected from here on. Set `safety_method` as before."
        )


def _settings(args: Any) -> dict[str, Any]:
    read = {"safety_budget", "data_seed"}.union(*(method.reads for method, _ in args.safety_terms)) - _WITHOUT_EFFECT
    found = {
        "safety_method": args.safety_method,
        "safety_weight": [weight for _, weight in args.safety_terms],
        "number of processes": PartialState().num_processes,
        **{name: getattr(args, name) for name in read},
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def _rows_digest(rows: Any) -> str | None:
    if not isinstance(rows, Sized) or not hasattr(rows, "__getitem__"):
        return None
    return _digest([len(rows), *evenly_spread(rows, _ROWS)])  # type: ignore[arg-type]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
