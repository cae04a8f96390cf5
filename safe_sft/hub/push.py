"""Push a folder as a repository of its own."""

from collections.abc import Sequence
from pathlib import Path

from ..evidence import attach
from ..evidence.digests import Digests
from ..storage.hub import Destination, upload
from .decision import PushRefused, require_pushable
from .eval_results import check_eval_results
from .folders import ModelFolder, open_folder

__all__ = ["PushRefused", "push_folder"]


def push_folder(
    path: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    include: Sequence[str] = (),
    ignore_gate: bool = False,
    evaluation: str | Path | None = None,
) -> str:
    """Push a model, importance or a teacher cache, with its card.

    Optimizer states, checkpoints, caches, pickles and unfinished files stay behind. A model with evidence is compared
    with it before.

    Args:
        path: the folder.
        repo: name of the repository on the Hub; created where it does not exist.
        private: whether a repository that is created is private.
        include: patterns of files that are pushed though they would stay behind, such as `checkpoint-*`.
        ignore_gate: whether to push a model that failed its safety gate, or needs one and has none, too.
        evaluation: folder of an evaluation of this model, whose evidence is added to the model's before.

    Returns:
        The address of the repository.

    Raises:
        HubError: when the push failed, with how to push again.
        PushRefused: when the model failed its gate, or needs one and has none; it is a `ValueError`.
        ValueError: when the folder holds nothing that can be pushed, or is not what its evidence says.
    """
    folder = open_folder(path)
    if isinstance(folder, ModelFolder):
        digests = Digests()  # each file of weights is read once
        if evaluation is not None:
            attach(path, evaluation, digests)
        require_pushable(path, ignore_gate=ignore_gate, digests=digests)
        check_eval_results(path)
    elif evaluation is not None:
        raise ValueError(f"`--evaluation {evaluation}` is of a model, and '{path}' holds {folder.kind}. Leave it out.")
    folder.write_card(repo)
    message = f"Upload {folder.kind} with safe_sft"
    return upload(folder.path, Destination(repo, private), only=folder.files, also=include, message=message)
