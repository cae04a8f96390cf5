"""Finds the shape of a model: in a local folder, in the files that ship with this package, or on the Hub."""

import json
from functools import cache
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from ..models.folders import MODEL_CONFIG, read_json

_SHAPES = Path(__file__).parent / "shapes"
# The sizes that a shape is built from, each with a bound far above that of any model.
_MOST = {
    "num_hidden_layers": 2000,
    "hidden_size": 10**6,
    "intermediate_size": 10**7,
    "num_attention_heads": 10**5,
    "num_key_value_heads": 10**5,
    "head_dim": 10**5,
    "vocab_size": 10**8,
}


class UnknownShape(ValueError):
    """There is no configuration of a model: not on this machine, not in the package, not on the Hub."""


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
        UnknownShape: when there is no such model, or it needs code of its own.
        ValueError: when no model has its shape.
    """
    shape = shipped_names().get(name.lower())
    if shape is not None and not Path(name).is_dir():
        fields = json.loads((_SHAPES / f"{shape}.json").read_text(encoding="utf-8"))
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    if (Path(name) / MODEL_CONFIG).is_file():
        read_json(Path(name) / MODEL_CONFIG)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RecursionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UnknownShape(
            f"The shape of `model_name_or_path={name!r}` is not known: it is neither a folder with a config.json, nor "
            f"a model whose shape ships with this package ({', '.join(_examples())}, …), nor to be had from the Hub "
            f"({reason}). Check the name, or download its config.json into a folder and give that."
        ) from error
    _require_shape(name, config)
    return config


def _require_shape(name: str, config: PreTrainedConfig) -> None:
    """Refuse sizes that no model has, before one of them is built."""
    text = config.get_text_config()
    for field, most in _MOST.items():
        value = getattr(text, field, None)
        if isinstance(value, int) and not 1 <= value <= most:
            raise ValueError(
                f"The configuration of `model_name_or_path={name!r}` has `{field}: {str(value)[:24]}`, which no model "
                f"has: it is from 1 to {most}. Fetch or save its config.json anew."
            )


def _examples() -> list[str]:
    names = json.loads((_SHAPES / "names.json").read_text(encoding="utf-8"))
    return [models[-1] for models in names.values()][:4]
