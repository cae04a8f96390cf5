"""Turns what is wrong with the files of a model into one line of error: value, reason, remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from ..storage.links import outside_target
from .fit import ModelError
from .folders import GENERATION_CONFIG, INDEX, read_json, required_folder

#: Characters of a library's own words that are repeated.
_LONGEST_REASON = 300
_REMEDIES = {
    "model": "Check the files, and fetch or save the folder anew with `save_pretrained`.",
    "adapter": "Check that it was trained on this base, and fetch or save the folder anew with PEFT's "
    "`save_pretrained`.",
    "tokenizer": "Check the files, and save the tokenizer anew with `save_pretrained`, or name a model that has one.",
}
_CODE = re.compile(r"trust_remote_code|custom code")


class MissingFileError(FileNotFoundError):
    """A file of a model that is not there, or cannot be read."""


@contextmanager
def readable(kind: str, name: str) -> Iterator[None]:
    """Say in one line what a library could not load; a lack of memory or of a package, and the Hub's errors, stay.

    Args:
        kind: what is loaded: `model`, `adapter` or `tokenizer`.
        name: folder or Hub name.

    Raises:
        MissingFileError: when a file is missing.
        ModelError: when a file is damaged, or does not fit the others.
    """
    folder = required_folder(name)
    if folder is not None:
        _check_index(folder, name)
        if kind == "model" and (folder / GENERATION_CONFIG).is_file():
            read_json(folder / GENERATION_CONFIG)  # transformers would go on without a damaged one
    try:
        yield
    except (torch.OutOfMemoryError, ImportError, ModelError, MissingFileError):
        raise
    except OSError as error:
        if folder is None and name in str(error):
            raise
        if folder is None:
            raise MissingFileError(
                f"The {kind} '{name}' is no folder here, and cannot be had from the Hub: {reason_of(error)} Check the "
                "name, or the network."
            ) from error
        raise MissingFileError(
            f"The {kind} '{name}' cannot be loaded: {reason_of(error)} {_REMEDIES[kind]}"
        ) from error
    except Exception as error:  # libraries raise what they happen to meet: all of it says that this cannot be loaded
        if isinstance(error, ValueError) and _CODE.search(str(error)):
            raise ModelError(
                f"The {kind} '{name}' comes with Python code of its own, which is never run without being asked for. "
                "Read the code and pass `--trust_remote_code` (`trust_remote_code: true`) where there is such an "
                "option, or use a model that transformers knows."
            ) from error
        raise ModelError(f"The {kind} '{name}' cannot be loaded: {reason_of(error)} {_REMEDIES[kind]}") from error


def reason_of(error: BaseException) -> str:
    """Return the message of a library in one line of bounded length that ends in a full stop."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, KeyError):
        text = f"{text} is missing, or not known"
    return f"{text[:_LONGEST_REASON]}…" if len(text) > _LONGEST_REASON else f"{text}."


def indexed_files(folder: Path, name: str, index: str = INDEX) -> list[Path]:
    """Return the files of weights that a folder's index names, each once; they lie in that folder.

    Args:
        folder: folder that holds the index.
        name: folder or Hub name of the model, as the user wrote it.
        index: file name of the index.

    Raises:
        MissingFileError: when a file is missing.
        ModelError: when the index cannot be read, or names a file outside of the folder.
    """
    files = _weight_map(folder / index, name).values()
    for file in files:
        if not isinstance(file, str) or not _inside(file):
            raise ModelError(
                f"The {index} of '{name}' names {file!r} as a file of weights, which is not one in its own folder. "
                "Do not use a model that reads files elsewhere; fetch or save it anew."
            )
    missing = sorted(file for file in set(files) if not (folder / file).is_file())
    if missing:
        raise MissingFileError(
            f"'{name}' lacks {missing[0]}, which its {index} names. Complete the download or the copy."
        )
    return [folder / file for file in dict.fromkeys(files)]


def own_file(folder: Path, path: Path) -> Path:
    """Return `path` if it lies in `folder`, also where it is a link; links of the Hub's cache are allowed.

    Raises:
        ModelError: when `path` leads elsewhere.
    """
    target = outside_target(folder, path)
    if target is not None:
        raise ModelError(
            f"'{path}' is a link to '{target}', outside of the model's folder, and is not read or copied. Replace the "
            "link by the file, if it belongs to the model."
        )
    return path


def _check_index(folder: Path, name: str) -> None:
    for index in (INDEX, "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            indexed_files(folder, name, index)


def _weight_map(path: Path, name: str) -> dict[str, Any]:
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ModelError(f"The {path.name} of '{name}' has no `weight_map`. Fetch or save the folder anew.")
    return files


def _inside(file: str) -> bool:
    kinds: tuple[type[PurePath], ...] = (PurePosixPath, PureWindowsPath)
    return bool(file) and not any(kind(file).is_absolute() or ".." in kind(file).parts for kind in kinds)
