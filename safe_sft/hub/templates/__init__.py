"""Jinja templates of the cards, in Markdown, and how texts of others are put into them."""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from ...storage.terminal import plain

_MARKDOWN = re.compile(r"[\\`*\[\]|~]")


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
    environment.filters.update({"cell": cell, "code": code, "fenced": fenced, "string": string})
    return environment.get_template(template).render(**values)


def cell(value: object) -> str:
    """Turn `value` into one line of Markdown, also in a table: no HTML, link, code or emphasis begins in it."""
    text = " ".join(plain(value).split())
    return _MARKDOWN.sub(r"\\\g<0>", text.replace("&", "&amp;").replace("<", "&lt;"))


def code(value: object) -> str:
    """Turn `value` into a span of code, also in a table; what it holds cannot end it."""
    text = " ".join(plain(value).split()).replace("|", r"\|")
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}" if text else ""


def fenced(text: str, language: str) -> str:
    """Turn a text into a block of code; what it holds cannot end it.

    Args:
        text: content of the block.
        language: language of the block, such as `yaml`.
    """
    fence = "~" * max(3, 1 + max((len(run) for run in re.findall("~+", text)), default=0))
    return f"{fence}{language}\n{plain(text)}\n{fence}"


def string(value: str) -> str:
    """Turn a text into a string of Python or JSON."""
    return json.dumps(plain(value), ensure_ascii=False)


def metadata(values: Mapping[str, Any]) -> str:
    """Turn values into the metadata on top of a card, with the lines around it; no value can end it."""
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n"
