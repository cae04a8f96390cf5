"""Loads the model that the arguments name, with an adapter trained before if one is named, as TRL would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.logging import get_logger
from peft import PeftConfig, PeftModel
from transformers import AutoProcessor, BitsAndBytesConfig, PreTrainedTokenizerBase
from trl import ModelConfig, get_peft_config, get_quantization_config

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..models.fit import check_vocabulary
from ..models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, locate, same_model, tokenizer_folder
from ..models.loading import load_adapter as adapter_on
from ..models.loading import load_base, load_config, load_tokenizer, refuse_adapter
from ..models.opening import readable
from .arguments import with_values

logger = get_logger(__name__)

#: LoRA settings of a recipe: the field of the recipe, and that of the adapter's configuration.
_LORA = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}


def trainer_arguments(script: SafeScriptArguments, args: SafeSFTConfig, model: ModelConfig) -> dict[str, Any]:
    """Return the trainer arguments that give its model: a name with or without a new adapter, or a loaded adapter.

    Args:
        script: the run's `SafeScriptArguments`, which name the adapter to train further, if any.
        args: the run's `SafeSFTConfig`; its `model_init_kwargs` override what `model` says.
        model: name of the model, how it is loaded, and its new adapter.

    Raises:
        FileNotFoundError: when the adapter to train further, or its safetensors, are missing.
        ValueError: when the LoRA settings differ from those of that adapter.
    """
    loading: dict[str, Any] = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),  # type: ignore[dict-item]
    }
    if script.adapter_name_or_path is None:
        return {
            "model": model.model_name_or_path,
            "processing_class": _processor(str(model.model_name_or_path), args, loading),
            "args": with_values(args, model_init_kwargs=loading),
            "quantization_config": get_quantization_config(model),
            "peft_config": get_peft_config(model),
        }
    loading["trust_remote_code"] = args.trust_remote_code
    adapter, tokenizer = load_adapter(script.adapter_name_or_path, model, loading)
    return {"model": adapter, "args": with_values(args, model_init_kwargs=None), "processing_class": tokenizer}


def nf4() -> BitsAndBytesConfig:
    """Return the quantisation of the QLoRA recipes."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="bfloat16",
    )


def require_template_file(path: str) -> None:
    """Check that the file of a chat template is there, and a text.

    Args:
        path: value of `chat_template_path`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is none in UTF-8.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"The file of `chat_template_path={path!r}` does not exist (looked in {Path.cwd()}). "
            "Paths are relative to the working folder: start there, or give another path."
        )
    try:
        Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The file of `chat_template_path={path!r}` is no text in UTF-8: {error}. Give a Jinja file."
        ) from error


def load_adapter(
    name: str, model: ModelConfig, loading: Mapping[str, Any]
) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Load the adapter `name`, trainable, on `model.model_name_or_path`, and the tokenizer saved with it.

    Args:
        name: folder or Hub name of the adapter.
        model: the base model. With `use_peft`, its LoRA settings must be those of the adapter.
        loading: arguments of `from_pretrained` for the base, `trust_remote_code` among them.

    Raises:
        FileNotFoundError: when the adapter or its safetensors are missing.
        ValueError: when the LoRA settings differ from the adapter's.
    """
    folder, base_name = _folder(name), str(model.model_name_or_path)
    with readable("adapter", name):
        config = PeftConfig.from_pretrained(str(folder))
    _check_settings(name, config, model)
    _warn_of_other_base(name, config, base_name)
    options = dict(loading)
    quantization = get_quantization_config(model)
    if quantization is not None:
        options |= {"quantization_config": quantization, "device_map": {"": PartialState().device}}
    base = load_base(base_name, **options)
    source = tokenizer_folder([folder])
    tokenizer = load_tokenizer(
        source or base_name,
        revision=None if source else model.model_revision,
        trust_remote_code=loading["trust_remote_code"],
    )
    check_vocabulary(base_name, tokenizer, base.config)
    return adapter_on(base, str(folder), is_trainable=True), tokenizer


def _processor(name: str, args: SafeSFTConfig, loading: Mapping[str, Any]) -> Any:
    """Load the tokenizer or processor that TRL would load, after checking the files of its model."""
    trust = bool(loading.get("trust_remote_code", args.trust_remote_code))
    refuse_adapter(name)
    config = load_config(name, revision=loading["revision"], trust_remote_code=trust)
    if not config.architectures:
        raise ValueError(
            f"The config.json of '{name}' names no class in `architectures`. Save the model with `save_pretrained`, "
            "which writes it."
        )
    options = {"revision": loading["revision"], "trust_remote_code": args.trust_remote_code}
    processor = load_tokenizer(name, auto=AutoProcessor, **options)
    check_vocabulary(name, processor, config)
    return processor


def _folder(name: str) -> Path:
    try:
        folder = locate(name)
    except OSError as error:  # of the Hub and of its cache, too
        raise FileNotFoundError(
            f"`adapter_name_or_path={name!r}` is neither a folder nor to be had from the Hub: {error}"
        ) from error
    for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"`adapter_name_or_path={name!r}` has no {file} (looked in {folder}). Name a folder that training "
                "with `use_peft` wrote, or a Hub repository with one."
            )
    return folder


def _check_settings(name: str, config: PeftConfig, model: ModelConfig) -> None:
    """Check that the LoRA settings, which describe a new adapter, do not contradict the one that is loaded."""
    wanted = get_peft_config(model)
    if wanted is None:
        return
    for field, attribute in _LORA.items():
        own, asked = getattr(config, attribute, None), getattr(model, field)
        if own != asked:
            raise ValueError(
                f"`{field}={asked!r}` is for a new adapter, and `adapter_name_or_path={name!r}` has {own!r}. Set "
                f"`{field}: {own}`, or `use_peft: false` to take all of the adapter's own settings."
            )


def _warn_of_other_base(name: str, config: PeftConfig, base: str) -> None:
    own = config.base_model_name_or_path or base
    if not same_model(own, base):
        logger.warning(
            f"The adapter '{name}' was trained on '{own}', and goes on here on '{base}': right only if one is a copy "
            "of the other."
        )
