"""Finds the shape of a model: in a local folder, in the files that ship with this package, or on the Hub."""

import json
from functools import cache
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

_SHAPES = Path(__file__).parent / "shapes"


@cache
def shipped_names() -> dict[str, str]:
    """Return the file of each model whose shape ships with the package, by its Hub name in lower case."""
    names = json.loads((_SHAPES / "names.json").read_text(encoding="utf-8"))
    return {name.lower(): shape for shape, models in names.items() for name in models}


def model_config(name: str, revision: str | None = None) -> PreTrainedConfig:
    """Return the configuration of a model; from a shipped file, only what its shape depends on.

    Args:
        name: local folder, or Hub name.
        revision: revision on the Hub.

    Raises:
        ValueError: when there is no such model, or it needs code of its own.
    """
    shape = shipped_names().get(name.lower())
    if shape is not None and not Path(name).is_dir():
        fields = json.loads((_SHAPES / f"{shape}.json").read_text(encoding="utf-8"))
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"The shape of `model_name_or_path={name!r}` is not known: it is neither a folder with a config.json, nor "
            f"a model whose shape ships with this package ({', '.join(_examples())}, …), nor to be had from the Hub "
            f"({reason}). Check the name, or download its config.json into a folder and give that."
        ) from error


def _examples() -> list[str]:
    names = json.loads((_SHAPES / "names.json").read_text(encoding="utf-8"))
    return [models[-1] for models in names.values()][:4]
