"""Refuses what a run would write over the aligned model or over what is not ours, and merges that cannot be."""

from pathlib import Path
from typing import Any

from ..config.safe_sft_config import SafeSFTConfig
from ..hub.merge_card import MERGE_CONFIG
from ..models.adapters import adapter_is_fresh
from ..models.folders import required_folder, same_model
from ..models.parts import base_model, is_peft_model
from ..storage.folders import require_folder


def check_output(args: SafeSFTConfig, model: Any) -> None:
    """Refuse an output that would overwrite the aligned model, another that is merged, or what is not ours.

    Args:
        args: the trainer's configuration.
        model: the aligned model, or its name.

    Raises:
        FileExistsError: when `output_dir` is a file.
        ValueError: naming the folder.
    """
    require_folder(str(args.output_dir), "output_dir")
    merges = args.merge_after_training is not None
    if not (args.safety_terms or merges):
        return
    name = model if isinstance(model, str) else str(base_model(model).config._name_or_path)
    written = [Path(str(args.output_dir)), *([Path(args.merged_dir)] if merges else [])]
    sides = {"the aligned model": name, "`merge_base`": args.merge_base, "`merge_safe`": args.merge_safe}
    for what, side in sides.items():
        if side and Path(side).is_dir() and Path(side).resolve() in [folder.resolve() for folder in written]:
            raise ValueError(
                f"`output_dir={str(args.output_dir)!r}` would overwrite {what} in '{side}'. Choose another "
                "`output_dir`."
            )
    merged = Path(args.merged_dir)
    if merges and merged.is_dir() and any(merged.iterdir()) and not (merged / MERGE_CONFIG).is_file():
        raise ValueError(
            f"`merge_after_training` would replace '{merged}', which no merge has written. Move it away, or choose "
            "another `output_dir`."
        )


def aligned_source(model: Any) -> str:
    """Return the folder or Hub name that the aligned model was loaded from, for a merge with it.

    Raises:
        ValueError: when the name is not known.
    """
    name = str(base_model(model).config._name_or_path)
    if not name:
        raise ValueError(
            "`merge_after_training` needs the aligned model on disk or on the Hub, and this one was made in memory. "
            "Pass the model by name, or merge with `safe-sft merge`."
        )
    return name


def check_merge(model: Any, args: SafeSFTConfig) -> None:
    """Refuse a merge with an aligned model that is not the base, or not on disk.

    Raises:
        ValueError: saying how to merge instead.
    """
    aligned = aligned_source(model)
    for side in filter(None, (args.merge_base, args.merge_safe)):
        required_folder(side)
        if same_model(side, aligned):
            raise ValueError(
                f"`merge_after_training={args.merge_after_training!r}` needs another model beside the aligned one, "
                f"and '{side}' is that model. Give the model before alignment as `merge_base`, and what was tuned "
                "for safety alone as `merge_safe`."
            )
    if is_peft_model(model) and not adapter_is_fresh(model):
        raise ValueError(
            "`merge_after_training` merges with the base model, and this adapter has been trained before. Merge the "
            "two adapters with `safe-sft merge` instead."
        )
