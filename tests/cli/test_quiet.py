"""Of what libraries say as a command starts, the lines that no user can act on are not shown, and no other is."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

from safe_sft.cli.quiet import BITSANDBYTES_LOGGER, BITSANDBYTES_MESSAGE, DEPRECATED, silence_libraries


def test_only_these_warnings_are_not_shown():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        silence_libraries()
        for message in DEPRECATED:
            warnings.warn(message, FutureWarning, stacklevel=1)
            warnings.warn(f"{message} And more.", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == [f"{message} And more." for message in DEPRECATED]


def test_only_this_line_of_the_log_is_not_shown(caplog):
    silence_libraries()
    logger = logging.getLogger(BITSANDBYTES_LOGGER)
    logger.warning(f"{BITSANDBYTES_MESSAGE}%s. Please install it.", ImportError("kernels"))
    logger.warning("Something else.")
    assert caplog.messages == ["Something else."]


def test_the_libraries_still_say_it():
    folder = Path(find_spec("bitsandbytes").origin).parent
    assert BITSANDBYTES_MESSAGE in folder.joinpath("backends", "cpu", "ops.py").read_text()
