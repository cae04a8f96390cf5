"""Adds the evidence of an evaluation to that of the model that it measured, so that the two go together."""

from pathlib import Path

from ..storage.names import EVIDENCE
from ..storage.writing import write_bytes, write_text
from .chain import ATTACHED, EVALUATED, INPUT, MANIFEST
from .digests import Digests
from .record import has_record, now
from .scope import EVALUATION, EVALUATIONS
from .strict import EvidenceError, digest_file, read_bytes
from .verify import Verified, verify


def attach(folder: str | Path, evaluation: str | Path, digests: Digests | None = None) -> bool:
    """Add an evaluation to the evidence of a model; both must be as they were written.

    Args:
        folder: folder of a model, with its evidence.
        evaluation: folder of an evaluation of it, with its own.
        digests: digests of files that are known already; None for none.

    Returns:
        Whether it was added: not where it is there already.

    Raises:
        EvidenceError: when one of the two does not match, is none, or the evaluation is of another model.
    """
    folder, source = Path(folder), Path(evaluation)
    digests = digests or Digests()
    measured = verify(source, digests=digests)
    if not has_record(folder):
        raise EvidenceError(
            f"The model in '{folder}' has no evidence that the evaluation '{source}' could be added to. Leave "
            "`--evaluation` out, or write evidence: `safe-sft train`, `repair` and `merge` do."
        )
    model = verify(folder, digests=digests)
    _check(model, measured, folder, source, digests)
    head = measured.chain.sealed_head
    if any(one.chain.sealed_head == head for one in model.evaluations):
        return False
    place, chain = f"{EVALUATIONS}/{len(model.evaluations) + 1}", model.chain
    for path in [MANIFEST, *(path for path in measured.chain.files() if path.startswith(f"{EVIDENCE}/"))]:
        write_bytes(folder / place / path, read_bytes(source / path, path))
        digest = digest_file(folder / place / path, path)
        chain.add(ATTACHED, time=chain.time(now()), path=f"{place}/{path}", **digest._asdict())
    chain.add(EVALUATED, time=chain.time(now()), folder=place, head=head)
    write_text(folder / MANIFEST, chain.text())
    return True


def _check(model: Verified, evaluation: Verified, folder: Path, source: Path, digests: Digests) -> None:
    """Check that the evaluation had this model on trial, on its own base, and goes on from its chain if from any."""
    if model.kind == EVALUATION:
        raise EvidenceError(
            f"The evidence in '{folder}' is of an evaluation, and not of a model. Give the model's folder."
        )
    if evaluation.kind != EVALUATION:
        raise EvidenceError(
            f"'{source}' holds the evidence of a {evaluation.kind}, and not of an evaluation. Give the `--output` of "
            "`safe-sft evaluate`."
        )
    name = evaluation.measured.require_of(folder, digests)
    if name not in (trial for trial, _ in evaluation.measured.on_trial):
        raise EvidenceError(
            f"In the evaluation '{source}', this model ('{name}') is the one that others are compared with, and the "
            "bounds are of the others. Evaluate it as the last `--model`, or alone."
        )
    evaluation.measured.require_on_trial(model.measured, str(source))
    heads = {entry["head"] for entry in evaluation.chain.of(INPUT) if entry["name"] == name}
    if heads and model.chain.sealed_head not in heads:
        raise EvidenceError(
            f"The evaluation '{source}' goes on from the evidence of another model than that in '{folder}', though "
            "their weights are the same. Evaluate the model in this folder, into another `--output`."
        )
