"""The model that is repaired, and the aligned model that it came from."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..merging.opening import tokenizer_of
from ..merging.side import Side
from ..models.fit import ModelError
from ..models.folders import ALL_WEIGHTS, MODEL_CONFIG, read_json, same_model
from ..storage.folders import check_output


@dataclass(frozen=True)
class Inputs:
    """What a repair starts from; nothing of it is ever written to.

    Attributes:
        model: folder or Hub name of the model or adapter that is repaired.
        aligned: folder or Hub name of the aligned model or adapter.
    """

    model: Side
    aligned: Side

    @classmethod
    def of(cls, model: str, aligned: str | None) -> "Inputs":
        """Look up what the user named.

        Args:
            model: folder or Hub name of a model or an adapter.
            aligned: the same of the aligned one; None takes the base that an adapter names.

        Raises:
            FileNotFoundError: when a folder is missing.
            ValueError: when a full model comes without the aligned one, or is that one itself.
        """
        side = Side(model)
        side.with_weights()
        if aligned is None and not side.is_adapter:
            raise ValueError(
                f"'{model}' is a full model, which does not say what it was tuned from. Give the aligned model as "
                "`--aligned`."
            )
        other = side.base if aligned is None else Side(aligned)
        if same_model(side.label, other.label):
            raise ValueError(f"`--aligned {other.label}` is the model that is to be repaired. Give the one before it.")
        _ = other.folder  # which may be missing
        if side.is_adapter and not same_model(side.base.label, other.label):
            raise ValueError(
                f"`--aligned {other.label}` is not the model that the adapter '{model}' was trained on, "
                f"'{side.base.label}', which it is scaled and measured with. Leave `--aligned` out."
            )
        return cls(side, other)

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter is repaired; the result is then an adapter of the same base."""
        return self.model.is_adapter

    @cached_property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer.

        Raises:
            ValueError: when neither side has one.
        """
        found = tokenizer_of(self.model, self.aligned)
        if found is None:
            raise ValueError(
                f"Neither '{self.model.label}' nor '{self.aligned.label}' has a tokenizer. Save it there."
            )
        return found

    def check_output(self, output: Path, *, overwrite: bool) -> None:
        """Refuse an output that is not empty, or that would replace one of the two models, or lie in one.

        Args:
            output: folder that the repaired model is to be written to.
            overwrite: whether a folder that is not empty may be replaced.

        Raises:
            FileExistsError: when the folder cannot be written to.
        """
        if output.is_symlink():
            raise FileExistsError(f"The output '{output}' is a link. Choose a folder.")
        target = output.resolve()
        for side in (self.model, self.aligned):
            source = Path(side.label).resolve()
            if Path(side.label).is_dir() and (
                target == source or source in target.parents or target in source.parents
            ):
                raise FileExistsError(
                    f"The output '{output}' is, or lies in, or holds '{side.label}', which is never written to. "
                    "Choose another folder."
                )
        check_output(output, overwrite=overwrite)

    def require_trainable(self) -> None:
        """Check that a full model is not quantised: its repaired weights could not be written as they are.

        Raises:
            ModelError: when it is.
        """
        folder = self.model.folder
        if not self.is_adapter and read_json(folder / MODEL_CONFIG).get("quantization_config") is not None:
            raise ModelError(
                f"'{self.model.label}' is a quantised full model, whose weights cannot be trained. Repair the adapter "
                "that it was made from, or give `--way merge`."
            )

    def digest(self) -> str:
        """Return a digest of both models' files of weights: names, sizes and times, none of which is read."""
        found = [
            [side.label, [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in _weights(side.with_weights())]]
            for side in (self.model, self.aligned)
        ]
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def _weights(folder: Path) -> list[Path]:
    return sorted(path for pattern in ALL_WEIGHTS for path in folder.glob(pattern))
