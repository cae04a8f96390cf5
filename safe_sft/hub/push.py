"""Push a folder as a repository of its own."""

from collections.abc import Sequence
from pathlib import Path

from ..evidence import EvidenceError, verify
from ..evidence.record import has_record, note_ignored_gate
from ..storage.hub import Destination, upload
from .eval_results import check_eval_results
from .folders import ModelFolder, open_folder
from .safety import SAFETY_FILE, failed_checks, read_safety


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

    Optimizer states, checkpoints, caches, pickles and unfinished files stay behind. A model with evidence is compared
    with it before.

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
        ValueError: when the folder holds nothing that can be pushed, or is not what its evidence says.
    """
    folder = open_folder(path)
    if isinstance(folder, ModelFolder):
        _check_gate(path, ignore_gate)
        _check_evidence(Path(path), ignore_gate)
        check_eval_results(path)
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


def _check_evidence(path: Path, ignores_gate: bool) -> None:
    """Check that the model is what its evidence says; what a gate said of it rests on that."""
    measured = read_safety(path) or {}
    if not has_record(path):
        if measured.get("gate") and not ignores_gate:
            raise EvidenceError(
                f"The model in '{path}' has passed a gate, says its {SAFETY_FILE}, and there is no evidence for it. "
                "Restore its folder `evidence`, or push it without with `--ignore_gate`."
            )
        return
    try:
        verify(path)
    except EvidenceError as error:
        raise EvidenceError(
            f"The model in '{path}' is not what its evidence says: {error} Restore the file, or remove `evidence` to "
            "push what is there without it."
        ) from error
    if ignores_gate and failed_checks(measured):
        note_ignored_gate(path)
