"""The merge that `merge_after_training` asks for."""

import os
from typing import Any

from ..config.merging import merge_numbers
from ..config.safe_sft_config import SafeSFTConfig
from ..merging import merge
from ..models.parts import is_peft_model
from .hub_trainer import HubTrainer
from .outputs import aligned_source


def merge_with_aligned(trainer: HubTrainer) -> None:
    """Merge what the trainer has saved with the aligned model, into `merged_dir`. Every rank must call it.

    Args:
        trainer: a trainer that has trained, and has saved its model in `output_dir`.
    """
    args = trainer.args
    if trainer.is_world_process_zero():
        merge_as_set(args, aligned_source(trainer.model), saved_in(trainer.model, str(args.output_dir)))
    trainer.accelerator.wait_for_everyone()


def merge_as_set(args: SafeSFTConfig, aligned: str, tuned: str) -> None:
    """Merge `tuned` with `aligned`, folders or Hub names, into `merged_dir`, as the configuration says."""
    merge(
        aligned,
        tuned,
        str(args.merge_after_training),
        output=args.merged_dir,
        base=args.merge_base,
        safe=args.merge_safe,
        overwrite=True,
        **merge_numbers(args),
    )


def saved_in(model: Any, folder: str) -> str:
    """Return where in `folder` the model is: PEFT saves an adapter with a name of its own in a folder of that name.

    Args:
        model: the model that was saved.
        folder: the folder that it was saved to.
    """
    adapter = model.active_adapter if is_peft_model(model) else "default"
    return folder if adapter == "default" else os.path.join(folder, adapter)
