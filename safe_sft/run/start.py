"""Lets training start from what an earlier stage has trained, while the aligned model stays the reference."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig

from ..models.fit import check_adapter
from ..models.folders import ADAPTER_CONFIG, MODEL_CONFIG
from ..models.loading import load_base
from ..models.opening import readable
from ..models.parts import is_peft_model
from ..trainer.compatibility import weights_are_cut_up
from ..trainer.safe_sft_trainer import SafeSFTTrainer

#: Settings of a LoRA without which its weights mean something else.
_SETTINGS = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")


def check_start(trainer: SafeSFTTrainer, folder: str | None) -> None:
    """Check, before anything is measured, that training can start from a folder.

    Args:
        trainer: the trainer, with the aligned model.
        folder: value of `start_from`; None starts from the aligned model.

    Raises:
        FileNotFoundError: when there is no model and no adapter.
        ValueError: when it is of another kind than what is trained, or the weights are sharded.
    """
    if folder is None:
        return
    model: Any = trainer.model
    is_adapter = (Path(folder) / ADAPTER_CONFIG).is_file()
    if not is_adapter and not (Path(folder) / MODEL_CONFIG).is_file():
        raise FileNotFoundError(
            f"`start_from={folder!r}` holds neither a model nor an adapter (looked in {Path.cwd()}). Give the folder "
            "that the stage before has written."
        )
    if is_adapter != is_peft_model(model):
        raise ValueError(
            f"`start_from={folder!r}` is an adapter, and this run trains the model in full. Set `use_peft: true`."
            if is_adapter
            else f"`start_from={folder!r}` is a whole model, and this run trains an adapter of the aligned one. Set "
            "`use_peft: false`, or start from an adapter."
        )
    if weights_are_cut_up(trainer):
        raise ValueError(
            f"`start_from={folder!r}` needs weights that are whole. Use DDP or one device instead of FSDP or ZeRO-3; "
            "or make the stage before the aligned model, as `model_name_or_path` or `adapter_name_or_path`."
        )
    if is_adapter:
        _check_settings(model, folder)


def _check_settings(model: Any, folder: str) -> None:
    with readable("adapter", folder):
        theirs = PeftConfig.from_pretrained(folder)
    ours = model.peft_config[model.active_adapter]
    for name in _SETTINGS:
        own, found = getattr(ours, name, None), getattr(theirs, name, None)
        if (own or None) != (found or None):
            raise ValueError(
                f"The adapter of this run has `{name}` {own!r}, and that of `start_from={folder!r}` has {found!r}. "
                "Set the LoRA settings of the stage before."
            )


@torch.no_grad()
def start_weights(trainer: SafeSFTTrainer, folder: str | None) -> None:
    """Put the weights of a folder in the place of the aligned ones, after all that is read off these.

    Args:
        trainer: a trainer that has not trained, after `check_start`.
        folder: value of `start_from`; None leaves all as it is.

    Raises:
        ValueError: when the weights do not fit.
    """
    if folder is None:
        return
    model: Any = trainer.model
    if is_peft_model(model):
        with readable("adapter", folder):
            result = model.load_adapter(folder, adapter_name=model.active_adapter, is_trainable=True)
        check_adapter(folder, result.missing_keys, result.unexpected_keys)
        return
    trusted = trainer.args.trust_remote_code
    started = load_base(folder, auto=type(model), dtype=model.dtype, trust_remote_code=trusted).state_dict()
    own = model.state_dict()
    differing = sorted(
        n for n in {*own, *started} if n not in own or n not in started or own[n].shape != started[n].shape
    )
    if differing:
        raise ValueError(
            f"`start_from={folder!r}` does not fit the aligned model: {len(differing)} tensors differ in name or "
            f"shape, such as '{differing[0]}'. Start from what was trained from the same model."
        )
    for name, tensor in own.items():
        tensor.copy_(started[name])
