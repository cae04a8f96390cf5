"""The one decision whether a model may be pushed: which gate let it through, and whether it is still that one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evidence import EVALUATION, MERGE, REPAIR, EvidenceError, Mismatch, Verified, accept_texts, verify
from ..evidence.digests import Digests, folder_weights
from ..evidence.measures import check_base
from ..evidence.record import has_record, note_ignored_gate
from ..storage.names import CARD
from .merge_card import MERGE_CONFIG
from .results import AFTER, MERGED
from .safety import SAFETY_FILE, failed_checks, read_safety


class PushRefused(ValueError):
    """The model failed its gate, or has to pass one and has not been measured."""


def require_pushable(
    folder: str | Path,
    *,
    ignore_gate: bool = False,
    claims: Mapping[str, Any] | None = None,
    wrote_card: bool = False,
    digests: Digests | None = None,
) -> None:
    """Let a model through, or say why not; the command and the trainer both ask here.

    A model that no gate was set for goes through, unless it was merged or repaired: these come from a model that was
    measured, or failed, and are another one. What is said of a gate counts only where the evidence bears it out, for
    the weights that are there.

    Args:
        folder: folder of the model, with all that would be uploaded.
        ignore_gate: whether to let a model through that no gate has; its evidence says so.
        claims: numbers that its card says, beside those of `safety.json`; None for no others.
        wrote_card: whether the caller has just written the card anew, so that another text of it is no fault.
        digests: digests of files that are known already; None for none.

    Raises:
        EvidenceError: when the model is not what its evidence says, or what its numbers are of.
        PushRefused: when it failed its gate, or needs one; both are `ValueError`s.
    """
    path, digests = Path(folder), digests or Digests()
    found = read_safety(path) or {}
    failed = failed_checks(claims or {}) or failed_checks(found)
    measured = {**found, **(claims or {})}
    if failed and not ignore_gate:
        raise PushRefused(
            f"The model in '{path}' failed its safety gate: {' '.join(failed)} Push it anyway with `--ignore_gate`; "
            "its card says that it failed."
        )
    record = _verified(path, wrote_card, digests) if has_record(path) else None
    for numbers in (found, claims or {}):
        _check_numbers(path, numbers, digests)
    if record is None:
        _without_evidence(path, measured, ignore_gate)
        return
    lacks = _what_it_lacks(record, measured)
    if lacks and not ignore_gate:
        raise PushRefused(
            f"The model in '{path}' {lacks} Measure it, with `safe-sft evaluate --model {path} --max_asr 0.05 "
            "--output EVALUATION`, and push it with `--evaluation EVALUATION`; or push it anyway with `--ignore_gate`."
        )
    if lacks or failed:
        note_ignored_gate(path)


def _check_numbers(path: Path, measured: Mapping[str, Any], digests: Digests) -> None:
    """Check that the numbers are of the weights in the folder, where it is known of which they are."""
    of = [str(one.get("weights")) for one in measured.get("models", ()) if one.get("name") in (AFTER, MERGED)]
    known = {weights.rpartition(" + ")[2] for weights in of} - {"None"}
    own = folder_weights(path, digests) if known else None
    if own is not None and own not in known:
        raise EvidenceError(
            f"The numbers of the model in '{path}' are of other weights than those there, which are {own}. Measure "
            f"these, or push them without numbers: remove {SAFETY_FILE} (`trainer.card = CardContent()`)."
        )


def _without_evidence(path: Path, measured: Mapping[str, Any], ignore_gate: bool) -> None:
    if ignore_gate:
        return
    if measured.get("gate"):
        raise EvidenceError(
            f"The model in '{path}' has passed a gate, says its {SAFETY_FILE}, and there is no evidence for it. "
            "Restore its folder `evidence`, or push it without with `--ignore_gate`."
        )
    if (path / MERGE_CONFIG).is_file():
        raise PushRefused(
            f"The model in '{path}' was merged, which measures nothing, and has no evidence that an evaluation could "
            "be added to. Merge it again, measure it with `safe-sft evaluate`, and push it with `--evaluation`; or "
            "push it anyway with `--ignore_gate`."
        )


def _verified(path: Path, wrote_card: bool, digests: Digests) -> Verified:
    try:
        try:
            found = verify(path, digests=digests)
        except Mismatch as error:
            if not (wrote_card and error.path == CARD):
                raise
            accept_texts(path, digests)
            found = verify(path, digests=digests)
        if found.kind != EVALUATION:
            check_base(path, found.measured.base, digests)
    except EvidenceError as error:
        raise EvidenceError(
            f"The model in '{path}' is not what its evidence says: {error} Or remove its folder `evidence`, to push "
            "what is there without it."
        ) from error
    if found.kind == EVALUATION:
        raise EvidenceError(
            f"The evidence in '{path}' is that of an evaluation, and holds to none of the weights there. Remove the "
            "folder `evidence`, and write evaluations into folders of their own."
        )
    return found


def _what_it_lacks(found: Verified, measured: Mapping[str, Any]) -> str | None:
    """Say which gate a model has not passed, in a sentence that begins with it; None where nothing lacks."""
    if found.evaluations:
        newest = found.evaluations[-1].measured
        return None if newest.passed else "did not pass the gate of the evaluation that was added last."
    own = found.measured
    if own.gate:
        return None if own.gate["passed"] is True else "did not pass the gate that its evidence holds."
    if found.kind == REPAIR:
        return "was repaired with bounds that were set when answers were there already, so that no gate decides."
    if found.kind == MERGE:
        return "was merged, which measures nothing, so that no gate has let it through."
    if measured.get("gate"):
        return f"has passed a gate, says its {SAFETY_FILE}, and its evidence holds none."
    return None
