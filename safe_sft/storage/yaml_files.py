"""Reads YAML that a user wrote: a key written twice, an alias of itself, and what becomes huge are errors."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

#: Most bytes of a file.
_MOST_BYTES = 10_000_000
#: Most values of one file, with its aliases written out.
_MOST_VALUES = 100_000


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Args:
        path: a file that exists.

    Raises:
        ValueError: when it is no YAML in UTF-8, contains itself, or is or becomes too large; in one line.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"it has {size} bytes; write at most {_MOST_BYTES}")
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{error}; save it in UTF-8") from error


def parse_yaml(text: str) -> Any:
    """Read YAML, after a look at how large it becomes with every alias written out.

    Raises:
        ValueError: when it is no YAML, contains itself, or becomes too large; in one line.
    """
    try:
        return _parsed(text)
    except (yaml.YAMLError, ValueError, TypeError) as error:  # the last two from values, such as a date of no day
        raise ValueError(" ".join(str(error).split())) from error


class _UniqueKeys(yaml.SafeLoader):
    """A YAML loader that refuses a key written twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for key, count in Counter(keys).items():
            if count > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"`{key}` is written {count} times; keep one", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _parsed(text: str) -> Any:
    loader = _UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_VALUES} values; write out what is meant")
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply; write it flat") from error
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Count the values of a node, those of an alias each time that it is used."""
    if id(node) not in known:
        known[id(node)] = None
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    size = known[id(node)]
    if size is None:
        raise yaml.YAMLError("an alias stands inside what it stands for; write out what is meant")
    return size
