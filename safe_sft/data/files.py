"""Data sets by file name or Hub name."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.nesting import require_shallow
from ..storage.writing import complete_file

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# What a formula begins with.
_FORMULA = tuple("=+-@")
# How the messages of `datasets` about a split begin.
_NO_SPLIT = ("Bad split", "Unknown split", "Unrecognized instruction format")
# File suffix -> builder of `datasets.load_dataset`.
FILE_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


def require_file(name: str) -> None:
    """Check that a name that looks like a data file is one.

    Args:
        name: path or Hub name of a data set.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    if Path(name).suffix in FILE_BUILDERS and "://" not in name and not Path(name).is_file():
        raise FileNotFoundError(f"The data file '{name}' does not exist (looked in {Path.cwd()}). Check the path.")


def load_rows(name: str, config: str | None = None, split: str | None = None, streaming: bool = False) -> Any:
    """Load a local JSON, JSONL, CSV, Parquet or text file, a folder, or a data set of the Hub.

    Args:
        name: path or Hub name.
        config: configuration of a Hub data set.
        split: one split, or None for all of them.
        streaming: whether to read the rows one by one as they are needed.

    Returns:
        A `Dataset` when `split` is given, a `DatasetDict` otherwise (iterable ones when streaming). A file is the
        split `train`.

    Raises:
        ConnectionError: when `name` is no file or folder, and cannot be had from the Hub.
        FileNotFoundError: when `name` looks like a file and does not exist.
        ValueError: when the data set has no rows, or they cannot be read.
    """
    from datasets import load_dataset

    builder = FILE_BUILDERS.get(Path(name).suffix)
    require_file(name)
    with named_errors(name):
        if builder in ("json", "csv", "text"):
            _check_text(name)
        if builder == "json":
            _check_first_row(name)
        for file in _json_files(name):
            require_shallow(file)
        if builder is None and Path(name).is_file():
            raise ValueError(f"'{name}' is of no known kind. Give one of: {', '.join(FILE_BUILDERS)}, or a folder.")
        if builder is None:
            return load_dataset(name, name=config, split=split, streaming=streaming)
        return load_dataset(builder, data_files=name, split=split, streaming=streaming)


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turn the errors of readers of files into one that names the file, and where they know it the line.

    Args:
        name: path or Hub name of what is read.

    Raises:
        ConnectionError: when it is no file or folder, and cannot be had from the Hub.
        ValueError: when the data set has no rows, or they cannot be read.
    """
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

    try:
        yield
    except (ConnectionError, DatasetNotFoundError) as error:
        raise ConnectionError(
            f"'{name}' is no file or folder here, and cannot be had from the Hub ({' '.join(str(error).split())}). "
            "Check the name, or the network."
        ) from error
    except (
        StopIteration,
        ValueError,
        DatasetGenerationError,
        DataFilesNotFoundError,
    ) as error:  # the first for JSON without a row
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:300]
        if "corresponds to no data" in reason or isinstance(error, StopIteration):  # the former for CSV
            raise ValueError(f"'{name}' has no rows. Give at least one.") from error
        if reason.startswith(_NO_SPLIT):
            raise ValueError(
                f"'{name}' has no such split: {reason.rstrip('.')}. Give another `--split` (in a recipe, the field of "
                "its split); a file has `train` alone."
            ) from error
        if isinstance(cause, UnicodeDecodeError):
            raise ValueError(f"'{name}' is not UTF-8 text: {reason}. Save it in UTF-8.") from error
        if Path(name).is_dir():
            raise ValueError(
                f"The folder '{name}' cannot be read as a data set: {reason.rstrip('.')}. Put files of one kind into "
                f"it ({', '.join(FILE_BUILDERS)}), or name a file."
            ) from error
        if isinstance(error, ValueError) and not type(error).__module__.startswith("pyarrow"):
            raise
        remedy = "Give every row the same columns, and every line of a .jsonl one JSON object."
        if Path(name).suffix == ".parquet":
            remedy = "The file is damaged or no Parquet file: write or copy it anew."
        raise ValueError(f"'{name}' cannot be read: {reason.rstrip('.')}. {remedy}") from error


def _check_text(name: str) -> None:
    """Check that a local file is UTF-8, where not every reader looks, and holds something.

    Raises:
        ValueError: when it is not; the message has the first line that is not.
    """
    if not Path(name).is_file():
        return
    is_blank = True
    with open(name, "rb") as file:
        for number, line in enumerate(file, start=1):
            is_blank = is_blank and not line.strip()
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                where = f"line {number} has the byte {line[error.start]:#04x}"
                raise ValueError(f"'{name}' is not UTF-8 text: {where}. Save it in UTF-8.") from None
    if is_blank:
        raise ValueError(f"'{name}' has no rows. Give at least one.")


def _json_files(name: str) -> list[Path]:
    """Return the JSON file of this name, or those of the folder."""
    paths = sorted(Path(name).rglob("*")) if Path(name).is_dir() else [Path(name)]
    return [path for path in paths if FILE_BUILDERS.get(path.suffix) == "json" and path.is_file()]


def _check_first_row(name: str) -> None:
    """Check that a local JSON file begins with an object, or a list of them; of nulls alone, the reader would crash.

    Raises:
        ValueError: when it begins with something else.
    """
    if not Path(name).is_file():
        return
    with open(name, encoding="utf-8-sig") as file:
        start = next((text for line in file if (text := line.strip())), "")
        inner = start[1:].lstrip() if start.startswith("[") else start
        if start.startswith("[") and not inner:
            inner = next((text for line in file if (text := line.strip())), "]")
    if start and not inner.startswith("{") and not (start.startswith("[") and inner.startswith("]")):
        raise ValueError(
            f"'{name}' begins with {start[:40]!r}, no row. Write one JSON object a line, or a list of objects."
        )


def write_rows(rows: "Dataset", path: Path) -> None:
    """Write a .jsonl, .json, .csv or .parquet file, whole or not at all; its folder is made.

    Args:
        rows: the rows to write.
        path: the file; its suffix says in which form.

    Raises:
        ValueError: when the form cannot hold the rows.
    """
    if path.suffix == ".csv" and any(not hasattr(feature, "dtype") for feature in rows.features.values()):
        raise ValueError(f"'{path}' cannot hold chat messages: CSV has texts alone. Choose .jsonl or .parquet.")
    with complete_file(path) as temporary:
        if path.suffix == ".csv":
            _warn_of_formulas(rows, path)
            rows.to_csv(temporary)
        elif path.suffix == ".parquet":
            rows.to_parquet(temporary)
        else:
            is_list = path.suffix == ".json"  # `datasets` writes a list in one batch only
            rows.to_json(temporary, len(rows) if is_list else None, lines=not is_list, force_ascii=False)


def _warn_of_formulas(rows: "Dataset", path: Path) -> None:
    """Warn of cells that a spreadsheet would calculate; an escape would change what is trained on."""
    texts = (value for row in rows for value in row.values() if isinstance(value, str))
    count = sum(text.lstrip().startswith(_FORMULA) for text in texts)
    if count:
        logger.warning(
            f"{count} cells of '{path}' begin with =, +, - or @: a spreadsheet reads them as formulas. Import them as "
            "text there, or write .jsonl."
        )
