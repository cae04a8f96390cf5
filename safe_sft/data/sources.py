"""Where published data sets are, and at which revision; the package contains no copy of them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import FILE_BUILDERS


class DataUnavailable(ConnectionError):
    """A published data set that could not be reached: no network, no access, or a source that has moved."""


@dataclass(frozen=True)
class Source:
    """Where a published data set is, and how it is loaded.

    Attributes:
        location: Hub name, or a web address with `{revision}` in it.
        revision: the commit that is used; a branch where no commit could be found out, which `pinned` tells.
        config: configuration of a Hub data set.
        data_dir: folder of the Hub data set that is read.
        options: further arguments of `datasets.load_dataset`, which say how its files are read.
        sha256: digest of the file of a web address, which is checked; None where it is not known.
    """

    location: str
    revision: str
    config: str | None = None
    data_dir: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, so that the rows are the same every time."""
        return re.fullmatch("[0-9a-f]{40}", self.revision) is not None

    @property
    def address(self) -> str:
        """The location with the revision filled in."""
        return self.location.format(revision=self.revision)

    def load(self, split: str | None = "train", argument: str = "path") -> Any:
        """Load the rows of one split, or of every split, from the network or from the cache of `datasets`.

        Args:
            split: name of the split in the source; None returns all of them, by name.
            argument: the option that takes a local copy, for the error message.

        Raises:
            DataUnavailable: when the source cannot be reached; the original error is its `__cause__`.
        """
        from datasets import load_dataset

        try:
            if "://" in self.location:
                builder = FILE_BUILDERS["." + self.location.rsplit(".", 1)[-1]]
                return load_dataset(builder, data_files=self._file(), split=split, **self.options)
            return load_dataset(
                self.location,
                self.config,
                data_dir=self.data_dir,
                revision=self.revision,
                split=split,
                **self.options,
            )
        except Exception as error:  # whatever `datasets`, the Hub or the network raises; named in what we raise
            raise DataUnavailable(
                f"'{self.address}' (revision {self.revision}, split '{split}') could not be loaded "
                f"({type(error).__name__}: {error}). Check the network, or give a local copy with the same columns "
                f"as `{argument}`."
            ) from error

    def _file(self) -> str:
        """Return where the file of a web address is read: a checked copy, where its digest is known."""
        if self.sha256 is None:
            return self.address
        from datasets import DownloadManager

        path = str(DownloadManager().download(self.address))
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(f"its SHA-256 is {found}, and {self.sha256} was expected")
        return path


def require_columns(rows: Any, columns: tuple[str, ...], name: str) -> None:
    """Check that `rows` has `columns`.

    Raises:
        ValueError: when a column is missing; the message names all that are there.
    """
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"'{name}' has the columns {rows.column_names}. It needs {' and '.join(f'`{c}`' for c in columns)}. "
            "Rename its columns, or choose another data set."
        )
