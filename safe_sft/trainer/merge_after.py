"""The merge that `merge_after_training` asks for."""

import os
from functools import partial
from typing import Any

from accelerate.logging import get_logger

from ..config.merging import merge_numbers
from ..config.safe_sft_config import SafeSFTConfig
from ..evidence import EvidenceError
from ..merging import merge
from ..merging.evidence import MergeEvidence
from ..merging.side import Sides
from ..models.parts import is_peft_model
from .hub_trainer import HubTrainer
from .outputs import aligned_source

logger = get_logger(__name__)


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
    """Merge `tuned` with `aligned`, folders or Hub names, into `merged_dir`, as the configuration says.

    Evidence that an earlier run has left in the folder of the tuned model is of other weights, and stops nothing.
    """
    write = partial(
        merge,
        aligned,
        tuned,
        str(args.merge_after_training),
        output=args.merged_dir,
        base=args.merge_base,
        safe=args.merge_safe,
        overwrite=True,
        **merge_numbers(args),
    )
    try:
        write()
    except EvidenceError as error:
        logger.warning(f"{error.fault} It is merged all the same, and the merge begins a chain of its own.")
        sides = Sides.of(aligned, tuned, args.merge_base, args.merge_safe)
        write(evidence=MergeEvidence(sides, begins=True))


def saved_in(model: Any, folder: str) -> str:
    """Return where in `folder` the model is: PEFT saves an adapter with a name of its own in a folder of that name.

    Args:
        model: the model that was saved.
        folder: the folder that it was saved to.
    """
    adapter = model.active_adapter if is_peft_model(model) else "default"
    return folder if adapter == "default" else os.path.join(folder, adapter)
