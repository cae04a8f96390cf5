"""Texts of models, data and files on the terminal: shown as they are, with no power over it.

Nothing in such a text is markup of `rich`. Control characters, which move the cursor, change colours or make links,
are shown as escapes.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: Control characters other than tab and line break, and those that change the direction of the text around them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Wide enough for the tables where there is no terminal, as in the log of a CI job.
_WIDE = 200


def plain(text: object) -> str:
    r"""Return a text with escapes in place of control characters.

    Args:
        text: the text, or something whose `str` is shown.

    Example:
        >>> plain("red: \x1b[31m")
        'red: \\x1b[31m'
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(text))


def shown(text: object, style: str = "") -> "Text":
    """Return a text that `rich` shows as it is.

    Args:
        text: the text, or something whose `str` is shown.
        style: style of the whole text, such as `bold`.
    """
    from rich.text import Text

    return Text(plain(text), style=style)


def table(*headings: str, **options: Any) -> "Table":
    """Make a table whose headings and cells are shown as they are.

    Args:
        headings: heading of each column.
        options: options of `rich.table.Table`.
    """
    from rich.table import Table

    class PlainTable(Table):
        def add_row(self, *cells: Any, **how: Any) -> None:
            super().add_row(*(shown(cell) if isinstance(cell, str) else cell for cell in cells), **how)

    made = PlainTable(**options)
    for heading in headings:
        made.add_column(shown(heading))
    return made


def console() -> "Console":
    """Make a console as wide as the terminal; without one, wide enough for the tables."""
    from rich.console import Console

    made = Console()
    return made if made.is_terminal else Console(width=max(made.width, _WIDE))
