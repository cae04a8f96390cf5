"""What a folder of a model or an adapter holds, and where its tokenizer is."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

# Everything a folder needs to be loaded, except its weights.
_COMPANIONS = ["*.json", "*.jinja", "*.model", "*.txt", "*.py", "additional_chat_templates/*.jinja"]


def locate(name: str, *, weights: bool = True) -> Path:
    """The folder of a model or adapter; one of the Hub is downloaded.

    Args:
        name: local folder, or Hub repository.
        weights: whether its weights are needed; without them a download is small.

    Raises:
        FileNotFoundError: when `name` is a local path that is not a folder.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"The folder '{name}' does not exist. Check the path, or give a Hub repository.")
    from huggingface_hub import snapshot_download

    shards = [WEIGHTS, "model-*.safetensors", ADAPTER_WEIGHTS] if weights else []
    return Path(snapshot_download(name, allow_patterns=[*_COMPANIONS, *shards]))


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a PEFT adapter rather than a model."""
    return (folder / ADAPTER_CONFIG).is_file()


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


#: What tells that a folder has a tokenizer.
_HAS_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def tokenizer_folder(folders: Iterable[Path]) -> Path | None:
    """The first of `folders` that holds a tokenizer."""
    return next((f for f in folders if any((f / name).is_file() for name in _HAS_TOKENIZER)), None)


def tokenizer_source(base: str, adapter: str | None) -> str:
    """Where the tokenizer and its chat template are: with the adapter, if it was saved with them, or with its base.

    Args:
        base: folder or Hub name of the model.
        adapter: folder or Hub name of an adapter on it.

    Raises:
        FileNotFoundError: when `adapter` is a local path that is not a folder.
    """
    own = None if adapter is None else tokenizer_folder([locate(adapter, weights=False)])
    return base if own is None else str(own)
