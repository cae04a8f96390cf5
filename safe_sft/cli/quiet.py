"""Hide what a command should not say: messages that a user can do nothing about, and secrets in any message."""

import logging
import re
import warnings

from ..storage.secrets import clean_text

#: Warnings that are hidden, by their exact text. TRL 1.16 still uses the old names; to be dropped with the first TRL
#: that uses the new ones.
DEPRECATED = (
    "`gradient_checkpointing` is deprecated and will be removed in v6. Use `activation_checkpointing` instead.",
    "`is_gradient_checkpointing` is deprecated and will be removed in v6. Use `is_activation_checkpointing` instead.",
)

#: PEFT 0.21 imports bitsandbytes wherever it is installed, whether a model is quantised or not, and on some CPUs that
#: misses a kernel; to be dropped with the first PEFT that imports it only where it is needed.
BITSANDBYTES_LOGGER = "bitsandbytes.backends.cpu.ops"
BITSANDBYTES_MESSAGE = "Failed to load CPU gemm_4bit_forward from kernels-community: "


def silence_libraries() -> None:
    """Hide these messages in this process. Call it before the libraries are imported."""
    for message in DEPRECATED:
        warnings.filterwarnings("ignore", f"{re.escape(message)}$", FutureWarning)
    logging.getLogger(BITSANDBYTES_LOGGER).addFilter(_is_shown)


def hide_secrets() -> None:
    """Put `***` in place of secrets in all that is logged by this process, whoever logs it."""
    logging.setLogRecordFactory(_Record)


class _Record(logging.LogRecord):
    """A message without secrets."""

    def getMessage(self) -> str:
        return clean_text(super().getMessage())


def _is_shown(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(BITSANDBYTES_MESSAGE)
