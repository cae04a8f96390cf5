"""Loads models, adapters and tokenizers from disk or the Hub, whole or not at all.

Nothing else of the package opens a model's folder through transformers or PEFT: where weights do not fit, both only
warn, and go on with random ones or with the base alone.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file, find_adapter_config_file

from .fit import ModelError, check_adapter, check_base, check_vocabulary
from .folders import read_json, tokenizer_source
from .opening import readable
from .template_probe import require_ending_template

_REPORTER = logging.getLogger("transformers.modeling_utils")


def load_model(
    name: str, adapter: str | None = None, dtype: str = "auto", trust_remote_code: bool = False
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Load a model, with an adapter where one is given, onto the device of this process, in eval mode.

    Args:
        name: folder or Hub name of a model, or of an adapter, which is loaded on the base that it names.
        adapter: PEFT adapter folder or Hub name. The tokenizer and its template are the adapter's, if it has its own.
        dtype: `auto` or the name of a torch dtype.
        trust_remote_code: whether to run code that comes with the model.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when files are damaged, or do not fit each other.
    """
    base = base_of_adapter(name) if adapter is None else None
    if base is not None:
        name, adapter = base, name
    model: Any = load_base(name, dtype=dtype, trust_remote_code=trust_remote_code)
    if adapter is not None:
        model = load_adapter(model, adapter)
    tokenizer = load_tokenizer(tokenizer_source(name, adapter), trust_remote_code=trust_remote_code)
    check_vocabulary(name, tokenizer, model.config)
    return model.to(PartialState().device).eval(), tokenizer


def load_base(name: str, *, auto: Any = AutoModelForCausalLM, trust_remote_code: bool = False, **options: Any) -> Any:
    """Load a model without an adapter, with all of its weights.

    Args:
        name: folder or Hub name of the model.
        auto: class to load it with.
        trust_remote_code: whether to run code that comes with the model.
        options: further arguments of `from_pretrained`.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when weights are damaged, missing, or do not fit the configuration; or it is an adapter.
    """
    with checked_loads(), readable("model", name):
        refuse_adapter(name)  # also here, for an `Auto…` class looks up the base itself
        return auto.from_pretrained(name, trust_remote_code=trust_remote_code, **options)


def load_adapter(model: Any, name: str, *, is_trainable: bool = False, **options: Any) -> Any:
    """Load a PEFT adapter on its base, with all of its weights.

    Args:
        model: the base, which gets the adapter's layers.
        name: folder or Hub name of the adapter.
        is_trainable: whether the adapter is to be trained.
        options: further arguments of `PeftModel.from_pretrained`.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when the adapter is damaged, or does not fit the base.
    """
    from peft import PeftModel

    with readable("adapter", name), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error below
        adapted = PeftModel.from_pretrained(model, name, is_trainable=is_trainable, **options)
        # A second time, because only this says which keys did not fit.
        result = adapted.load_adapter(name, "default", is_trainable=is_trainable, **options)
    check_adapter(name, result.missing_keys, result.unexpected_keys)
    return adapted


def load_tokenizer(
    name: str | Path, *, auto: Any = AutoTokenizer, trust_remote_code: bool = False, **options: Any
) -> Any:
    """Load a tokenizer, or a processor.

    Args:
        name: folder or Hub name of the model.
        auto: class to load it with.
        trust_remote_code: whether to run Python code that comes with it.
        options: further arguments of `from_pretrained`.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when a file is damaged, or the chat template does not end.
    """
    with readable("tokenizer", str(name)):
        loaded = auto.from_pretrained(str(name), trust_remote_code=trust_remote_code, **options)
    if auto is AutoTokenizer and not loaded.chat_template:
        loaded.chat_template = _processor_template(str(name), options.get("revision"))
    require_ending_template(loaded, str(name))
    return loaded


def _processor_template(name: str, revision: str | None) -> str | None:
    """Return the chat template of older vision-language models, which is in a file that only the processor reads."""
    file = cached_file(
        name,
        "chat_template.json",
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if file is None else read_json(Path(file)).get("chat_template")


def load_config(name: str | Path, *, trust_remote_code: bool = False, **options: Any) -> PreTrainedConfig:
    """Load the configuration of a model.

    Args:
        name: folder or Hub name of the model.
        trust_remote_code: whether to run Python code that comes with it.
        options: further arguments of `from_pretrained`.

    Raises:
        FileNotFoundError: when the configuration is missing.
        ValueError: when the configuration is damaged, or of an unknown kind.
    """
    with readable("model", str(name)):
        return AutoConfig.from_pretrained(str(name), trust_remote_code=trust_remote_code, **options)


def base_of_adapter(name: str) -> str | None:
    """Return the base that an adapter names; None for a model.

    Raises:
        ValueError: when the adapter names no base.
    """
    with readable("adapter", name):
        found = find_adapter_config_file(name)
        base = None if found is None else read_json(Path(found)).get("base_model_name_or_path")
    if found is not None and not base:
        raise ModelError(
            f"The adapter '{name}' does not name its base. Give the base as the model, and the adapter beside it."
        )
    return base


@contextmanager
def checked_loads() -> Iterator[None]:
    """Let whatever loads a model through transformers inside this context get all of its weights, or an error."""
    original = PreTrainedModel.__dict__["from_pretrained"]

    @wraps(original.__func__)
    def from_pretrained(cls: Any, name: Any, *args: Any, **options: Any) -> Any:
        load = original.__get__(None, cls)
        if name is None or options.get("output_loading_info"):
            return load(name, *args, **options)
        with readable("model", str(name)):
            refuse_adapter(str(name))
            with _reports_held_back():
                asked = {"ignore_mismatched_sizes": True, **options, "output_loading_info": True}
                model, info = load(name, *args, **asked)
                info = info if not options.get("ignore_mismatched_sizes") else {**info, "mismatched_keys": set()}
                quantised = getattr(model.config, "quantization_config", None) is not None
                check_base(str(name), info, model.state_dict(), quantised=quantised)
        return model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)  # type: ignore[assignment]
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = original  # type: ignore[method-assign]


def refuse_adapter(name: str) -> None:
    """Raise an error for an adapter: transformers would load it on its base, and not say what the base lacks.

    Args:
        name: folder or Hub name of what is to be a model.

    Raises:
        ModelError: when it is an adapter.
    """
    base = base_of_adapter(name)
    if base is not None:
        raise ModelError(
            f"'{name}' is an adapter, and not a model. Give its base '{base}' as the model, and '{name}' as the "
            "adapter."
        )


@contextmanager
def _reports_held_back() -> Iterator[None]:
    """Show transformers' tables of keys only when loading succeeds; else the error says the same."""
    held: list[logging.LogRecord] = []

    def keep(record: logging.LogRecord) -> bool:
        is_report = "LOAD REPORT" in record.getMessage()
        held.extend([record] * is_report)
        return not is_report

    _REPORTER.addFilter(keep)
    try:
        yield
    finally:
        _REPORTER.removeFilter(keep)
    for record in held:
        _REPORTER.handle(record)
