"""Which weights a model is of, in a text that stands beside every answer and verdict."""

from pathlib import Path

from accelerate import PartialState
from huggingface_hub import try_to_load_from_cache

from ..evidence.digests import Digests, folder_weights
from ..models.folders import ADAPTER_CONFIG, MODEL_CONFIG
from ..models.loading import base_of_adapter


def loaded_weights(path: str, adapter: str | None = None) -> str | None:
    """Name the weights of a model that `load_model` has loaded; None where they are not known, and on other ranks.

    Args:
        path: folder or Hub name of the model, or of an adapter on the base that it names.
        adapter: folder or Hub name of an adapter on the model.
    """
    if not PartialState().is_main_process:  # which alone writes them
        return None
    base = base_of_adapter(path) if adapter is None else None
    return weights_of(path, adapter, Digests()) if base is None else weights_of(base, path, Digests())


def weights_of(path: str, adapter: str | None, digests: Digests) -> str | None:
    """Name the weights of a model; None where they are not known.

    Args:
        path: folder or Hub name of the model.
        adapter: folder or Hub name of an adapter on it; None without one.
        digests: digests of files that are known already.

    Returns:
        `sha256:DIGEST` for a folder, `NAME@COMMIT` for the Hub; of an adapter after ` + `.
    """
    parts = [_weights(path, MODEL_CONFIG, digests)]
    if adapter is not None:
        parts.append(_weights(adapter, ADAPTER_CONFIG, digests))
    return None if None in parts else " + ".join(map(str, parts))


def _weights(name: str, config: str, digests: Digests) -> str | None:
    folder = Path(name)
    if folder.is_dir():
        return folder_weights(folder, digests)
    # What was loaded lies in the cache, in a folder of the name of its commit.
    found = try_to_load_from_cache(name, config)
    return f"{name}@{Path(found).parent.name}" if isinstance(found, str) else None
