"""Downloads folders from the Hugging Face Hub by name, and uploads them, trying again where that may help.

Tokens come from the environment (`HF_TOKEN`) or from `hf auth login`, and appear in no message.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import escape
from pathlib import Path
from typing import NamedTuple, TypeVar

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library that huggingface_hub uses, whichever that is
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from .names import EVAL_RESULTS, LEFT_OUT
from .secrets import clean_text

logger = logging.getLogger(__name__)

#: Marks a repository of the Hub where a bare name would be a folder.
SCHEME = "hf://"

#: What `huggingface_hub` raises when the Hub could not be reached, or refused a request.
UNREACHED = (HTTPError, OfflineModeIsEnabled)

_DATA_FILES = {".json", ".jsonl", ".csv", ".parquet", ".txt"}
_ATTEMPTS = 5
_LONGEST_WAIT = 300
_PASSING = {408, 429, 500, 502, 503, 504}
_UNWELCOME = {401, 403}

Result = TypeVar("Result")


class HubError(ConnectionError):
    """The Hub could not be reached, or refused a request."""


class RemoteName(NamedTuple):
    """A model repository of the Hub.

    Attributes:
        repo: name of the repository, `owner/name`.
        revision: branch, tag or commit; None for the newest.
    """

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, source: str) -> "RemoteName | None":
        """Read `hf://owner/name` or `hf://owner/name@revision`; None for a text that does not begin with `hf://`.

        Raises:
            ValueError: when something else follows `hf://`.
        """
        if not source.startswith(SCHEME):
            return None
        repo, at, revision = source.removeprefix(SCHEME).rstrip("/").partition("@")
        if repo.count("/") != 1 or not all(repo.split("/")) or (at and not revision):
            raise ValueError(
                f"'{source}' names no repository of the Hub. Write {SCHEME}OWNER/NAME, or {SCHEME}OWNER/NAME@REVISION."
            )
        return cls(repo, revision or None)

    def download(self, patterns: Sequence[str]) -> Path:
        """Download the files that `patterns` name, if they have changed; returns the folder of the local copy.

        Raises:
            HubError: when the Hub cannot be reached and there is no local copy.
        """
        try:
            return Path(snapshot_download(self.repo, revision=self.revision, allow_patterns=list(patterns)))
        except (*UNREACHED, HFValidationError, LocalEntryNotFoundError) as error:
            raise HubError(
                f"The repository '{self.repo}' of the Hub cannot be read: {reason(error)}. Check the name and the "
                "network; for a private one, log in with `hf auth login` or set HF_TOKEN."
            ) from error


def hub_name(name: str | None) -> str | None:
    """Return `name` if it may name a repository of the Hub, and is no local file or folder; else None."""
    try:
        validate_repo_id(name or "")
    except HFValidationError:
        return None
    return None if os.path.exists(str(name)) or Path(str(name)).suffix in _DATA_FILES else name


@dataclass(frozen=True)
class Destination:
    """Where a folder is uploaded to.

    Attributes:
        repo: name of the model repository; created where it does not exist.
        private: whether a repository that is created is private; None leaves it to the owner's settings.
        token: token for the Hub; by default the one of the environment or of `hf auth login`.
        revision: branch to upload to; by default the main one.
    """

    repo: str
    private: bool | None = None
    token: str | None = field(default=None, repr=False)
    revision: str | None = None

    def failed(self, folder: str | Path, error: Exception) -> HubError:
        """Make the error to raise when uploading `folder` ended in `error`."""
        return HubError(
            f"Pushing '{folder}' to '{self.repo}' failed: {reason(error, self.token)}. Nothing is lost, it is all in "
            f"'{folder}'. Push it again with: safe-sft push {folder} --repo {self.repo}"
            f"{' --private' if self.private else ''}"
        )


def upload(
    folder: str | Path,
    destination: Destination,
    *,
    only: Sequence[str] | None = None,
    also: Sequence[str] = (),
    message: str = "Upload with safe_sft",
) -> str:
    """Upload a folder in one commit, and try again where that may help; files that are there are not sent again.

    Args:
        folder: the folder to upload.
        destination: the repository to upload to.
        only: patterns of the files to upload; all but `LEFT_OUT` by default.
        also: patterns of files in `LEFT_OUT` that are uploaded nevertheless.
        message: message of the commit.

    Returns:
        The address of the repository.

    Raises:
        HubError: when the upload failed; the message gives the reason, and how to push again.
    """
    api = HfApi(token=destination.token)
    push = partial(
        api.upload_folder,
        folder_path=folder,
        revision=destination.revision,
        allow_patterns=None if only is None else list(only),
        ignore_patterns=_left_out(Path(folder), also) if only is None else None,
        commit_message=message,
    )
    try:
        url = patiently(lambda: api.create_repo(destination.repo, private=destination.private, exist_ok=True))
        patiently(partial(push, repo_id=url.repo_id))
    except (*UNREACHED, ValueError) as error:  # the last for a wrong name, and metadata that the Hub does not take
        raise destination.failed(folder, error) from error
    return str(url)


def _left_out(folder: Path, also: Sequence[str]) -> list[str]:
    """Return the patterns of what stays behind; of hidden files, only the results that the Hub shows do not."""
    patterns = [pattern for pattern in LEFT_OUT if pattern not in also]
    if ".*" in patterns:
        patterns.remove(".*")
        hidden = [escape(path.name) for path in folder.glob(".*") if path.name != EVAL_RESULTS]
        patterns += [*hidden, *(f"{name}/*" for name in hidden)]
    return patterns


def patiently(call: Callable[[], Result]) -> Result:
    """Call, and repeat a few times when the connection breaks or the Hub is busy, after the wait that it asks for.

    `huggingface_hub` does so itself for what it downloads and for the files that it uploads, but not when it creates a
    repository, checks a card or makes a commit.

    Args:
        call: function that does no harm when it is called twice.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return call()
        except HTTPError as error:
            wait = _wait(error, attempt)
            if wait is None:
                raise
            logger.warning(f"The Hub did not take it ({reason(error)}). Trying again in {wait:g} s.")
            time.sleep(wait)
    return call()


def _wait(error: Exception, attempt: int) -> float | None:
    """Return the seconds until the next attempt; None when another attempt is of no use."""
    if not isinstance(error, HfHubHTTPError):  # no answer at all
        return min(2.0 ** (attempt - 1), 30)
    if error.response.status_code not in _PASSING:
        return None
    asked = error.response.headers.get("retry-after", "")
    return min(float(asked) if asked.isdigit() else 2.0 ** (attempt - 1), _LONGEST_WAIT)


def reason(error: Exception, token: str | None = None) -> str:
    """Say what went wrong, in a line without secrets.

    Args:
        error: error of `huggingface_hub` or of the network.
        token: token that must not appear in the text, besides that of the environment.
    """
    if isinstance(error, HfHubHTTPError) and error.response.status_code in _UNWELCOME:
        return (
            f"the Hub did not accept the token ({error.response.status_code}). Log in with `hf auth login`, or set "
            "HF_TOKEN to a token that may write there"
        )
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return clean_text(text, (token, get_token()))
