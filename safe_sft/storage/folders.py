"""Output folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from .disk import writing


@contextmanager
def complete_folder(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Open a new folder beside `output`; it takes that name when all is written, and is deleted if something fails.

    Args:
        output: path that the folder will have.
        overwrite: whether a folder that is there, and not empty, may be replaced.

    Yields:
        The folder to write to, `.<name>.partial-…`.

    Raises:
        FileExistsError: when `output` is there and not empty, at the beginning or in the end, and may not be replaced.
    """
    check_output(output, overwrite=overwrite)
    output = output.absolute()
    partial = output.with_name(f".{output.name}.partial-{uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        with writing(output):
            yield partial
        _take_place(partial, output, overwrite=overwrite)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raise an error for a folder that is not empty.

    Raises:
        FileExistsError: when `output` is there and not empty, and may not be replaced; or is, or lies in, a file.
    """
    if (output.is_file() and not overwrite) or (output.is_dir() and any(output.iterdir()) and not overwrite):
        raise FileExistsError(
            f"The output '{output}' exists and is not empty. Choose another folder, or pass `--overwrite` "
            "(`overwrite=True`) to replace it."
        )
    require_folder(output, "--output")


def require_folder(path: str | os.PathLike[str], name: str) -> None:
    """Check, before anything is done, that a folder is there or can be made.

    Args:
        path: the folder that will be written to.
        name: the argument that gave it, for the error message.

    Raises:
        FileExistsError: when there is a file of this name, or one of the folders that it is to lie in is a file, or
            a link that leads nowhere.
    """
    folder = Path(path).absolute()
    found = next((part for part in (folder, *folder.parents) if part.exists() or part.is_symlink()), None)
    if found is not None and not found.is_dir():
        what = "a file" if found.exists() else "a link that leads nowhere"
        raise FileExistsError(f"`{name}` is '{path}', and '{found}' is {what}. Choose another folder.")


def require_apart(path: str | os.PathLike[str], name: str, inputs: Iterable[str | None]) -> None:
    """Check that a folder that will be written to is none that is read, and lies in none: what is read stays as it is.

    Args:
        path: the folder that will be written to.
        name: the argument that gave it, for the error message.
        inputs: folders, or names of the Hub; None is left out.

    Raises:
        FileExistsError: when it is one of them, or lies in one.
    """
    target = Path(path).resolve()
    for read in filter(None, inputs):
        source = Path(read).resolve()
        if Path(read).is_dir() and (target == source or source in target.parents):
            raise FileExistsError(
                f"`{name}` is '{path}', which is or lies in '{read}', a folder that is read and stays as it is. "
                "Choose another folder."
            )


def require_other_file(path: str | os.PathLike[str], name: str, read: str) -> None:
    """Check that a file that will be written is not the one that is read, maybe the only copy of its rows.

    Args:
        path: the file that will be written.
        name: the argument that gave it, for the error message.
        read: the file that is read, or a name of the Hub.

    Raises:
        FileExistsError: when they are the same.
    """
    if Path(read).exists() and Path(path).resolve() == Path(read).resolve():
        raise FileExistsError(f"`{name} {path}` is the file that is read, which stays as it is. Choose another file.")


def require_no_folder(path: str | os.PathLike[str], name: str) -> None:
    """Check that a file that will be written has not the name of a folder.

    Args:
        path: the file that will be written.
        name: the argument that gave it, for the error message.

    Raises:
        FileExistsError: when it has.
    """
    if Path(path).is_dir():
        raise FileExistsError(f"`{name}` is '{path}', a folder. Give the path of a file.")


def _take_place(partial: Path, output: Path, *, overwrite: bool) -> None:
    if not (overwrite and output.exists()):
        try:
            partial.replace(output)  # also one that is there, and empty
        except OSError:
            check_output(output, overwrite=False)  # says so where another process has filled it in the meantime
            raise
        return
    old = output.with_name(f".{output.name}.old-{uuid4().hex[:8]}")
    output.replace(old)
    try:
        partial.replace(output)
    except OSError:
        old.replace(output)
        raise
    shutil.rmtree(old)
