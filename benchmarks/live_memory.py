"""What a computation allocates on the CPU, counted by the allocator: exact, and the same on every machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class Allocations:
    """What a block of code allocated; filled in when the block ends.

    Attributes:
        peak: most bytes alive at a time, beside what was alive before; temporaries inside operators count.
        largest: bytes of the largest single allocation.
    """

    peak: int = 0
    largest: int = 0


@contextmanager
def allocations() -> Iterator[Allocations]:
    """Count what is allocated inside this context."""
    found = Allocations()
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        yield found
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        found.peak, found.largest = max(found.peak, alive), max(found.largest, event.nbytes())
