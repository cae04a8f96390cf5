"""What the folder of a model or an adapter holds, how to tell the two apart, and where the tokenizer is."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..storage.json_object import read_json_file
from .fit import ModelError

#: What the names of weight files begin with.
MODEL, ADAPTER = "model", "adapter_model"


def shard_name(stem: str, number: int = 1, count: int = 1) -> str:
    """Return the name of a file of weights.

    Args:
        stem: what the file name begins with: `MODEL` or `ADAPTER`.
        number: number of the file, from 1 on.
        count: number of all files; a single one has no number in its name.
    """
    return f"{stem}.safetensors" if count == 1 else f"{stem}-{number:05d}-of-{count:05d}.safetensors"


def index_name(stem: str) -> str:
    """Return the name of the file that tells which of several files holds a tensor."""
    return f"{stem}.safetensors.index.json"


WEIGHTS, INDEX = shard_name(MODEL), index_name(MODEL)
ADAPTER_WEIGHTS = shard_name(ADAPTER)
MODEL_CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
_REMEDY = "Fetch or save the folder anew."
ADAPTER_CONFIG = "adapter_config.json"

#: Patterns of the files that tokenizers and processors are made of, and of their templates.
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "additional_chat_templates",
)
#: Patterns of what a model needs besides its configuration, its weights and its tokenizer.
MODEL_FILES = (GENERATION_CONFIG, "*.py", "*processor_config.json")
#: One of these is in every folder that has a tokenizer.
_HAS_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")

# What is downloaded of a repository, besides its weights.
_COMPANIONS = ("*.json", "*.jinja", "*.model", "*.txt", "*.py", "additional_chat_templates/*.jinja", "evidence/*")
#: Patterns of the weights of a model or an adapter.
ALL_WEIGHTS = (WEIGHTS, f"{MODEL}-*.safetensors", ADAPTER_WEIGHTS)


def locate(name: str, *, weights: Sequence[str] = ALL_WEIGHTS) -> Path:
    """Return the folder of a model or adapter; one of the Hub is downloaded.

    Args:
        name: local folder, or Hub repository.
        weights: patterns of the weight files that are needed; without any, the download is small.

    Raises:
        FileNotFoundError: when `name` is a local path that is not a folder.
    """
    folder = required_folder(name)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=[*_COMPANIONS, *weights]))


def required_folder(name: str) -> Path | None:
    """Return the folder of this name; None for the name of a Hub repository.

    Raises:
        FileNotFoundError: when `name` is a local path that is not a folder.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"The folder '{name}' does not exist. Check the path, or give a Hub repository.")
    return None


def is_adapter(folder: Path) -> bool:
    """Return whether `folder` holds a PEFT adapter rather than a model."""
    return (folder / ADAPTER_CONFIG).is_file()


def same_model(name: str, other: str) -> bool:
    """Return whether two names stand for the same repository of the Hub, or the same folder."""
    return name == other or Path(name).resolve() == Path(other).resolve()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model, which holds a mapping.

    Raises:
        ModelError: when it holds something else.
    """
    try:
        content = read_json_file(path, _REMEDY)
    except ValueError as error:
        raise ModelError(str(error)) from error
    if not isinstance(content, dict):
        raise ModelError(f"'{path}' holds a {type(content).__name__}, not a mapping. {_REMEDY}")
    return content


def tokenizer_folder(folders: Iterable[Path]) -> Path | None:
    """Return the first of `folders` that holds a tokenizer."""
    return next((f for f in folders if any((f / name).is_file() for name in _HAS_TOKENIZER)), None)


def tokenizer_source(base: str, adapter: str | None) -> str:
    """Return where the tokenizer is: with the adapter, if it was saved with one, or else with the model.

    Args:
        base: folder or Hub name of the model.
        adapter: folder or Hub name of an adapter on it.

    Raises:
        FileNotFoundError: when `adapter` is a local path that is not a folder.
    """
    own = None if adapter is None else tokenizer_folder([locate(adapter, weights=())])
    return base if own is None else str(own)
