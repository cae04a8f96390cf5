"""Push a folder as a repository of its own."""

from collections.abc import Sequence
from pathlib import Path

from ..storage.hub import Destination, upload
from .folders import ModelFolder, open_folder
from .safety import failed_checks, read_safety


class PushRefused(ValueError):
    """The model failed its gate."""


def push_folder(
    path: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    include: Sequence[str] = (),
    ignore_gate: bool = False,
) -> str:
    """Push a model, importance or a teacher cache, with its card.

    Optimizer states, checkpoints, caches, pickles and unfinished files stay behind.

    Args:
        path: the folder.
        repo: name of the repository on the Hub; created where it does not exist.
        private: whether a repository that is created is private.
        include: patterns of files that are pushed though they would stay behind, such as `checkpoint-*`.
        ignore_gate: whether to push a model that failed its safety gate, too; its card says so.

    Returns:
        The address of the repository.

    Raises:
        HubError: when the push failed, with how to push again.
        PushRefused: when the model failed its gate; it is a `ValueError`.
        ValueError: when the folder holds nothing that can be pushed.
    """
    folder = open_folder(path)
    if isinstance(folder, ModelFolder):
        _check_gate(path, ignore_gate)
    folder.write_card(repo)
    message = f"Upload {folder.kind} with safe_sft"
    return upload(folder.path, Destination(repo, private), only=folder.files, also=include, message=message)


def _check_gate(path: str | Path, ignore: bool) -> None:
    failed = failed_checks(read_safety(path) or {})
    if failed and not ignore:
        raise PushRefused(
            f"The model in '{path}' failed its safety gate: {' '.join(failed)} Push it anyway with `--ignore_gate`; "
            "its card says that it failed."
        )
