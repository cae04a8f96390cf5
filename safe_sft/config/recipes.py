"""Recipes: YAML files of a run's arguments, of which one may extend others.

    extends: ../_qlora.yaml        # or a list; paths are relative to this file
    model_name_or_path: …          # what is written here wins over what is extended

A key replaces the one it extends, value and all; only the variables of `env` are merged one by one.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..storage.secrets import without_secrets
from ..storage.yaml_files import parse_yaml, read_yaml

EXTENDS = "extends"


def read_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arguments of a recipe and of those that it extends; of a list, the later recipe wins.

    Args:
        path: path of the YAML file.

    Raises:
        FileNotFoundError: when the recipe, or one that it extends, does not exist.
        ValueError: when a recipe is not a mapping, or extends itself.
    """
    return _read(Path(os.path.normpath(path)), ())


def resolved_recipe(argv: Sequence[str]) -> dict[str, Any]:
    """Turn a command line into one recipe: its recipe, resolved, with its other arguments written in.

    Tokens, keys, passwords and the variables of `env` are left out. The result can be dumped as YAML and run again.

    Args:
        argv: words of the command line after `safe-sft train`.

    Raises:
        FileNotFoundError: when a recipe does not exist.
        ValueError: when a recipe cannot be read.

    Example:
        >>> resolved_recipe(["--output_dir", "out", "--learning_rate", "1e-4", "--hub_token", "hf_abc"])
        {'output_dir': 'out', 'learning_rate': 0.0001}
    """
    path, rest = split_recipe(argv)
    return without_secrets({**({} if path is None else read_recipe(path)), **_overrides(rest)})


def split_recipe(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the path after `--config` (None without one), and the other arguments.

    Raises:
        ValueError: when the path is missing, or there are several.
    """
    paths, rest, arguments = [], [], iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name != "--config":
            rest.append(argument)
            continue
        path = value if equals else next(arguments, "")
        if not path or path.startswith("--"):
            raise ValueError("`--config` has no path. Write `--config recipe.yaml`.")
        paths.append(path)
    if len(paths) > 1:
        raise ValueError(
            f"`--config` is given {len(paths)} times. Give one recipe, and join others in its `{EXTENDS}`."
        )
    return (paths[0] if paths else None), rest


def _read(path: Path, extended_by: tuple[Path, ...]) -> dict[str, Any]:
    chain = (*extended_by, path)
    if path.resolve() in [above.resolve() for above in extended_by]:
        raise ValueError(f"The recipes extend each other in a circle: {_arrows(chain)}. Remove one `{EXTENDS}`.")
    content = _load(path, extended_by)
    parents = content.pop(EXTENDS, [])
    names = [parents] if isinstance(parents, str) else parents
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"`{EXTENDS}: {parents!r}` in '{path}' is no recipe. Write the path of one, relative to this file, or a "
            "list of paths."
        )
    recipe: dict[str, Any] = {}
    for name in names:
        recipe = _joined(recipe, _read(Path(os.path.normpath(path.parent / name)), chain))
    return _joined(recipe, content)


def _load(path: Path, extended_by: tuple[Path, ...]) -> dict[str, Any]:
    origin = f", which '{extended_by[-1]}' extends," if extended_by else ""
    if not path.is_file():
        where = "Paths are relative to the file that extends." if extended_by else f"Looked in {Path.cwd()}."
        raise FileNotFoundError(f"The recipe '{path}'{origin} does not exist. {where}")
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"The recipe '{path}' cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"The recipe '{path}'{origin} is not a mapping. Write one `key: value` a line.")
    _check_env(content.get("env", {}), f"the recipe '{path}'{origin.removesuffix(',')}")
    return content


def _check_env(env: Any, where: str) -> None:
    """Check that variables of the environment have names and values that it takes.

    Raises:
        ValueError: naming the variable, and never its value, which may be a secret.
    """
    if not isinstance(env, dict):
        raise ValueError(f"`env` of {where} is no mapping. Write one `VARIABLE: value` a line.")
    for name, value in env.items():
        if not isinstance(name, str) or not re.fullmatch(r"[^=\0]+", name):
            raise ValueError(
                f"`env` of {where} has {name!r}, which is no name of a variable. Write one such as `HF_HOME`."
            )
        if not isinstance(value, (str, int, float)) or "\0" in str(value):
            raise ValueError(f"`env` of {where} has no text as `{name}`. Write one `VARIABLE: value` a line.")


def _joined(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    joined = {**low, **high}
    if isinstance(low.get("env"), dict) and isinstance(high.get("env"), dict):
        joined["env"] = {**low["env"], **high["env"]}
    return joined


def _overrides(argv: Sequence[str]) -> dict[str, Any]:
    """Turn `--key value`, `--key=value`, `--key a b`, `--flag` and `--no_flag` into the keys of a recipe."""
    given: dict[str, list[str]] = {}
    key = None
    for argument in argv:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            key = name.replace("-", "_")
            given[key] = [value] if equals else []
        elif key is not None:
            given[key].append(argument)
    recipe: dict[str, Any] = {}
    for key, values in given.items():
        if values:
            recipe[key] = _value(values[0]) if len(values) == 1 else [_value(value) for value in values]
        else:
            recipe[key.removeprefix("no_")] = not key.startswith("no_")
    return recipe


def _value(text: str) -> Any:
    """Read numbers, truth values and mappings; all else stays text (`no` is also a strategy, `none` a method)."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.startswith("{"):
        return parse_yaml(text)
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def _arrows(chain: Sequence[Path]) -> str:
    return " → ".join(map(str, chain))
