"""Says what is wrong with a file of a folder that has evidence, and what to do about it."""

from .digests import is_weights
from .scope import is_text
from .strict import RESTORE, Mismatch


def strange(path: str, what: str) -> Mismatch:
    """Make the error for what is no file.

    Args:
        path: path in the folder.
        what: what it is, in a word.
    """
    link = "Links are not followed: copy the files, or `hf download REPO --local-dir FOLDER`."
    return Mismatch(path, f"is a {what}, and no file.", link if what == "link" else RESTORE)


def of_weights(path: str) -> str:
    """Say, behind another sentence, what it means that a file of weights is another; nothing of other files."""
    return " The weights are not those that were measured." if is_weights(path) else ""


def remedy(path: str, otherwise: str = RESTORE) -> str:
    """Say what to do about a file that is not as it was.

    Args:
        path: path in the folder.
        otherwise: what to do where it is no text that a person may change.
    """
    return "If that is meant: `safe-sft verify FOLDER --accept_texts`." if is_text(path) else otherwise
