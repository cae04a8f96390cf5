"""How every chart is drawn: the same picture for the same numbers, and names as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...storage.terminal import plain


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save charts inside this context: `$` in a name begins no formula, and text in SVG can be searched."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False, "svg.hashsalt": "safe_sft", "svg.fonttype": "none"}):
        yield


def label(name: str) -> str:
    """Return a name as the label of an axis or a legend, which leaves out names that begin with `_`.

    Args:
        name: name of a model, a suite or a task.
    """
    text = plain(name)
    return f" {text}" if text.startswith("_") else text
