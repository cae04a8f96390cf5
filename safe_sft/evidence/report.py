"""Says in words what a record holds that was found to match."""

from collections.abc import Iterator

from .chain import GATE_IGNORED, INPUT, SEALED, STARTED, STATED
from .record import COMPUTE, MEASURED, STATEMENT
from .verify import Verified


def lines(found: Verified) -> Iterator[str]:
    """Make the lines that `safe-sft verify` prints.

    Args:
        found: the record.
    """
    stated, started = next(found.chain.of(STATED)), next(found.chain.of(STARTED))
    sealed = next(found.chain.of(SEALED))
    yield f"{found.files} files match the evidence of this {found.kind}, sealed {sealed['time']}."
    yield f"Stated {stated['time']}, started {started['time']}: {_bounds(found)}."
    yield from (f"Not here, for it stays where it was measured: {path}." for path in found.absent)
    gate = found.documents[MEASURED]["gate"]
    yield "Gate: none." if not gate else f"Gate: {'passed' if gate['passed'] else 'not passed'}."
    for entry in found.chain.of(GATE_IGNORED):
        yield f"It was pushed by hand, though its gate was not passed, at {entry['time']}."
    if COMPUTE in found.documents:
        compute = found.documents[COMPUTE]
        flop = "not counted" if compute["flop"] is None else f"{compute['flop']:.3g} FLOP"
        yield f"Training: {flop}; {compute['third']['verdict']}."
    for entry in found.chain.of(INPUT):
        known = "of which there is evidence" if entry["head"] else "of which nothing is known"
        yield f"Made of, or compared with: {entry['role']} ({entry['name']}), {known}."
    for added in found.evaluations:
        yield f"Evaluated since, by a gate of safety: {'passed' if added.measured.passed else 'not passed'}."
    yield f"Head of the chain: {found.chain.head}"


def _bounds(found: Verified) -> str:
    decisions = found.documents[STATEMENT]["decisions"]
    return ", ".join(f"{one['bound']} {one['limit']}" for one in decisions) or "no bounds"
