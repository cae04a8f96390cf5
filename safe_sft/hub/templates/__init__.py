"""Jinja templates of the cards, in Markdown."""

from typing import Any


def render(template: str, /, **values: Any) -> str:
    """Fill in a template; a missing value is an error.

    Args:
        template: name of a file in this folder.
        values: the values that the template uses, by name.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("safe_sft.hub"),
        autoescape=False,  # Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["cell"] = cell
    return environment.get_template(template).render(**values)


def cell(value: object) -> str:
    """Turn `value` into the text of one cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")
