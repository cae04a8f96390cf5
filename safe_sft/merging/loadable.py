"""Checks that what a merge has written can be loaded: names and shapes, without a second copy in memory."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from ..models.fit import ModelError
from ..models.folders import MODEL_CONFIG, read_json
from ..models.loading import load_adapter, load_base, load_config
from ..models.opening import readable
from .side import Side

logger = logging.getLogger(__name__)


def check_model(folder: Path) -> None:
    """Check that a merged model loads, by loading it onto no device.

    Args:
        folder: folder of the model.

    Raises:
        ValueError: when the model's tensors are not those of its class.
    """
    if _needs_code(folder):
        logger.warning("The merged model comes with Python code of its own, so it was not loaded to check it.")
        return
    load_base(str(folder), auto=_model_class(load_config(folder)), device_map="meta")


def check_adapter_on(base: Side, folder: Path, label: str) -> None:
    """Check that a merged adapter loads onto its base, of which only the shapes are needed.

    Args:
        base: the adapter's base model.
        folder: folder of the merged adapter.
        label: folder or Hub name of the adapter that was merged, as the user wrote it.

    Raises:
        ValueError: when the adapter does not fit the base.
    """
    try:
        shape = base.folder
    except OSError:
        logger.warning(f"The merged adapter was not loaded to check it: its base '{base.label}' cannot be reached.")
        return
    if not (shape / MODEL_CONFIG).is_file() or _needs_code(shape):
        logger.warning(f"The merged adapter was not loaded to check it: '{base.label}' is not of a known shape.")
        return
    model = model_without_weights(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of what was decided when the adapter was trained
        try:
            load_adapter(model, str(folder), low_cpu_mem_usage=True)
        except ModelError as error:
            raise ModelError(
                f"'{label}' is no adapter of '{base.label}', so their merge is not written: "
                f"{str(error).replace(str(folder), label)}"
            ) from error


def model_without_weights(folder: Path) -> Any:
    """Build the model that a folder's configuration names, on no device.

    Args:
        folder: folder of the model's configuration.

    Raises:
        ModelError: when its class cannot be built from it.
    """
    config = load_config(folder)
    with torch.device("meta"), readable("model", str(folder)):
        return _from_config(_model_class(config), config)


def _model_class(config: Any) -> Any:
    """Return the class that the model was saved from, if transformers has it."""
    import transformers

    name = (config.architectures or [""])[0]
    return getattr(transformers, name, None) or transformers.AutoModelForCausalLM


def _from_config(model_class: Any, config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    if model_class is AutoModelForCausalLM:
        return model_class.from_config(config, trust_remote_code=False)
    return model_class(config)


def _needs_code(folder: Path) -> bool:
    from transformers import CONFIG_MAPPING

    config = read_json(folder / MODEL_CONFIG)
    return "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING
