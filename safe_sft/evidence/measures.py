"""What a record says was measured, of which weights, and whether that is of a model that lies in a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..storage.links import outside_target
from .digests import Digests, decides_answers, folder_weights
from .record import MEASURED, STATEMENT
from .scope import EVALUATION
from .strict import EvidenceError, Mismatch, as_written, parse_json, read_bytes

_ADAPTER = "adapter_config.json"
#: Bounds that are of safety; a gate without one says nothing of it.
_OF_SAFETY = ("max_asr", "max_asr_increase")


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        models: name and weights of each model; an evaluation compares the others with the first.
        gate: the gate's checks; None where there was none.
        base: weights of the base that the record's adapter was measured on; None where it is no adapter, or not known.
        own: digest of the record's weights; None of an evaluation.
        bounds_safety: whether a bound of the gate, stated before, is of attack success.
    """

    models: tuple[tuple[str, str], ...]
    gate: Mapping[str, Any] | None
    base: str | None
    own: str | None
    bounds_safety: bool

    @classmethod
    def of(cls, documents: Mapping[str, Any]) -> "Measured":
        """Read it off the documents of a record.

        Args:
            documents: their contents, by path.

        Raises:
            Mismatch: when they do not hold what this package writes.
        """
        content, statement = documents[MEASURED], documents[STATEMENT]
        with as_written(MEASURED):
            models = tuple((str(one["name"]), str(one["weights"])) for one in content["models"])
            found = {} if statement["kind"] == EVALUATION else content["weights"]
            bounds = {one["bound"] for one in statement["decisions"] if one["by"] == "gate"}
            base = found.get("base")
            if base is None:
                of_model = [weights for name, weights in models if name == found.get("model") and " + " in weights]
                base = of_model[0].rpartition(" + ")[0] if of_model else None
            return cls(models, content["gate"], base, found.get("sha256"), bool(bounds & {*_OF_SAFETY}))

    @property
    def on_trial(self) -> tuple[tuple[str, str], ...]:
        """The models that an evaluation's bounds are of: all but the first, or the only one."""
        return self.models[1:] or self.models

    @property
    def passed(self) -> bool:
        """Whether there was a gate of safety, and it was passed."""
        return self.bounds_safety and bool(self.gate) and self.gate["passed"] is True  # type: ignore[index]

    def require_on_trial(self, model: "Measured", name: str) -> None:
        """Check that an evaluation had the model of another record on trial.

        Args:
            model: the other record's.
            name: path of the evaluation, for error messages.

        Raises:
            Mismatch: when its bounds are of other weights, or of the same adapter on another base.
        """
        for _, weights in self.on_trial:
            base, _, own = weights.rpartition(" + ")
            if own != model.own:
                continue
            if base and _is_known(model.base) and base != model.base:
                raise Mismatch(
                    name,
                    f"is of this adapter on another base, {base}; its own is {model.base}.",
                    "Evaluate it on its own.",
                )
            return
        raise Mismatch(name, "has other weights on trial than those of this model.", "Evaluate this model.")

    def require_of(self, folder: Path, digests: Digests) -> str:
        """Check that an evaluation measured the weights in a folder, and return the name that they had in it.

        Links are read as far as they stay in the folder, or in the Hub's cache that it is part of.

        Args:
            folder: folder of a model or an adapter.
            digests: digests of files that are known already.

        Raises:
            EvidenceError: when there is no such folder, or nothing to compare with.
            Mismatch: when it measured others, or the same adapter on another base.
        """
        if not folder.is_dir():
            raise EvidenceError(
                f"The folder '{folder}' of `--model` does not exist (looked in {Path.cwd()}). Check the path."
            )
        _check_links(folder)
        own = folder_weights(folder, digests)
        if own is None:
            raise EvidenceError(
                f"The folder '{folder}' of `--model` holds no weights to compare with. Give the folder of a model or "
                "an adapter."
            )
        for name, weights in self.models:
            base, _, found = weights.rpartition(" + ")
            if found == own:
                check_base(folder, base or None, digests, by_name=True)
                return name
        raise Mismatch(
            MEASURED,
            f"is not of the weights in '{folder}': they are none of those that were measured.",
            "Measure them, with `safe-sft evaluate --output`, or give the folder that was measured.",
        )


def check_base(folder: Path, base: str | None, digests: Digests, *, by_name: bool = False) -> None:
    """Check that the base which an adapter names is the one that it was measured on, as far as it is here.

    Args:
        folder: folder of the adapter; that of a model is not looked at.
        base: weights of the base that it was measured on; None where that is not known.
        digests: digests of files that are known already.
        by_name: whether one of the Hub, too, has to be the one that was measured, by its name.

    Raises:
        Mismatch: when it is another.
    """
    if not (folder / _ADAPTER).is_file() or not _is_known(base):
        return
    config = parse_json(read_bytes((folder / _ADAPTER).resolve(), _ADAPTER), _ADAPTER)
    with as_written(_ADAPTER):
        name = str(config["base_model_name_or_path"])
    if Path(name).is_dir():
        now = folder_weights(Path(name), digests)
    elif not by_name or str(base).startswith(f"{name}@") or _is_path(name):
        return  # the one of the Hub that was measured, or a folder of another machine
    else:
        now = "those of the Hub"
    if now != base:
        raise Mismatch(
            _ADAPTER,
            f"names the base '{name}', whose weights are {now}, and the adapter was measured on {base}.",
            "Measure it on that base, with `safe-sft evaluate`, or restore the one that it was measured on.",
        )


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name


def _is_known(base: str | None) -> bool:
    return base is not None and (base.startswith("sha256:") or "@" in base)


def _check_links(folder: Path) -> None:
    """Refuse links out of a model's folder: what they lead to can be changed without a trace in it."""
    for path in sorted(folder.iterdir()):
        if not (decides_answers(path.name) and path.is_symlink()):
            continue
        target = outside_target(folder, path)
        if target is not None:
            raise Mismatch(
                path.name,
                f"is a link that leads out of '{folder}', to '{target}', where it can be changed without a trace.",
                "Copy the file into the folder, or give the folder that it leads to.",
            )
        if not path.exists():
            raise Mismatch(path.name, f"is a link to '{path.resolve()}', where nothing is.", "Restore the file.")
