"""Reads the evidence of a model that another is made of, so that the other's record can go on from it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..storage.links import outside_target
from ..storage.names import EVIDENCE
from ..storage.writing import write_bytes
from .chain import MANIFEST, Chain
from .digests import Digests, folder_weights
from .origin import Origin
from .plain import portable
from .record import MEASURED, STATEMENT
from .scope import EVALUATION
from .strict import MOST_BYTES, EvidenceError, Mismatch, parse_json, read_bytes
from .verify import verify_alone

#: Most files of the evidence of one model, with all that it was made of.
_MOST_FILES = 2_000


def origin_of(role: str, name: str, weights: str | None, folder: Path, digests: Digests) -> Origin:
    """Look at a model that another is made of; evidence of a run that has not ended counts for none.

    Args:
        role: what it is in that.
        name: name of the model, as the user wrote it.
        weights: which weights it has; None where that is not known.
        folder: its folder, which may be one of the Hub's cache.
        digests: digests of files that are known already.

    Raises:
        EvidenceError: when it has evidence that is damaged, or that is of another model.
    """
    known = Origin(role, str(portable(name)), weights or "unknown")
    try:
        files = dict(_files(folder))
        head = _head(files, folder, digests) if files else ""
    except Mismatch as error:
        raise EvidenceError(
            f"The model '{name}' is not what its evidence says: {error.fault} Restore that file, or remove the folder "
            f"'{folder / EVIDENCE}': the model then counts as one of which nothing is known."
        ) from error
    return known if not head else Origin(role, known.name, known.weights, head, files)


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file of a model's evidence."""
    if not (folder / MANIFEST).exists():
        return
    paths = sorted(path for path in (folder / EVIDENCE).rglob("*") if not path.is_dir())
    if len(paths) > _MOST_FILES or sum(path.stat().st_size for path in paths if path.exists()) > MOST_BYTES:
        raise Mismatch(EVIDENCE, f"has more than {_MOST_FILES} files, or than {MOST_BYTES} bytes.")
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if (target := outside_target(folder, path)) is not None:
            raise Mismatch(name, f"is a link that leads out of its folder, to '{target}'.")
        yield name, read_bytes(path.resolve(), name)


def _head(files: Mapping[str, bytes], folder: Path, digests: Digests) -> str:
    """Check the evidence by itself, and that it is of the weights in the folder; empty where it is of no model."""
    chain, own = Chain.parse(files[MANIFEST]), folder_weights(folder, digests)
    if own is None or not chain.is_sealed or _kind(files) == EVALUATION:
        return ""  # also where the weights are not here, and cannot be compared
    with TemporaryDirectory() as copy:
        for path, content in files.items():
            write_bytes(Path(copy) / path, content)
        documents = verify_alone(Path(copy)).documents
    if documents[MEASURED]["weights"]["sha256"] != own:
        raise Mismatch(MEASURED, "is of other weights than those in this folder.")
    return chain.sealed_head


def _kind(files: Mapping[str, bytes]) -> Any:
    statement = parse_json(files.get(STATEMENT, b""), STATEMENT)
    return statement.get("kind") if isinstance(statement, dict) else None
