"""What `safe-sft importance` does: load a model and safety rows, estimate, combine, normalise, write."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import LoraConfig, get_peft_model

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data import TokenizedRow
from ..importance import Importance, anchor_space, build_importance, discard_partial
from ..models.adapters import check_modules_to_save
from ..models.fit import check_vocabulary
from ..models.folders import tokenizer_source
from ..models.loading import load_adapter, load_base, load_tokenizer
from ..storage.folders import require_apart, require_folder
from ..storage.names import IMPORTANCE_FILE
from ..trainer.safety_set import SafetySet
from .data import safety_rows
from .model import nf4, require_template_file


@dataclass(frozen=True)
class ImportanceArguments:
    """What importance is estimated from, and how; the defaults are those of the command.

    Attributes:
        model: folder or Hub name of the aligned model.
        output: folder to write to.
        adapter: LoRA adapter that was trained before and is tuned further; None for a fresh one.
        lora_target_modules: modules that a fresh LoRA will adapt.
        lora_modules_to_save: modules that will be trained in full beside it.
        safety_dataset: safety rows, as in `safety_dataset_name`; None for the built-in prompts.
        chat_template_path: Jinja file of the chat template; None for that of the tokenizer.
        estimator: `empirical`, `sampled` or `mas`.
        space: `weight` or `adapter`; None takes `weight` for a fresh LoRA, else `adapter`.
        batch_size: rows at a time, per device.
        max_length: most tokens of a row; longer ones are cut.
        max_new_tokens: longest answer to a prompt without one, in tokens.
        normalization: how importance is normalised: `mean` or `none`.
        previous: folder or Hub name of the importance of the stage before; None without one.
        decay: factor on the importance of the stage before, from 0 to 1.
        seed: decides which answers `sampled` draws.
        dtype: precision of the weights; `auto` for that of the saved model.
        load_in_4bit: whether the model is quantised as in the QLoRA recipes.
        trust_remote_code: whether Python code that comes with the model may run.
    """

    model: str
    output: str
    adapter: str | None
    lora_target_modules: list[str]
    lora_modules_to_save: list[str] | None
    safety_dataset: str | None
    chat_template_path: str | None
    estimator: str
    space: str | None
    batch_size: int
    max_length: int
    max_new_tokens: int
    normalization: str
    previous: str | None
    decay: float
    seed: int
    dtype: str
    load_in_4bit: bool
    trust_remote_code: bool

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise ValueError(f"`--decay {self.decay}` must lie between 0 and 1.")


def make_importance(args: ImportanceArguments) -> tuple[Path, Importance]:
    """Estimate importance, combine it with an earlier stage's, normalise and write it; every process must call it.

    Args:
        args: model, rows and settings.

    Returns:
        The path of the file, and the importance that it holds.

    Raises:
        OSError: when a model or a data set cannot be reached.
        ValueError: when the arguments do not go together, or the rows cannot be used.
    """
    require_folder(args.output, "--output")
    require_apart(args.output, "--output", (args.model, args.adapter, args.previous))
    if args.chat_template_path is not None:
        require_template_file(args.chat_template_path)
    model, tokenizer = _load(args)
    space = anchor_space(model, args.space)
    previous = Importance.load(args.previous) if args.previous else None
    importance = build_importance(
        model,
        tokenizer,
        space,
        _tokenized_rows(args, model, tokenizer),
        estimator=args.estimator,
        batch_size=args.batch_size,
        seed=args.seed,
        folder=Path(args.output),
        checkpointing=True,
    )
    if previous is not None:
        importance = importance.after(previous, args.decay)
    importance = importance.normalized(args.normalization)
    if PartialState().is_main_process:
        importance.save(args.output)
    PartialState().wait_for_everyone()
    discard_partial(Path(args.output))
    return Path(args.output) / IMPORTANCE_FILE, importance


def _load(args: ImportanceArguments) -> tuple[Any, Any]:
    """Load the model, with the adapter that is or will be trained, and its tokenizer."""
    model: Any = load_base(
        args.model,
        dtype=args.dtype,
        trust_remote_code=args.trust_remote_code,
        quantization_config=nf4() if args.load_in_4bit else None,
        device_map={"": PartialState().device},
    )
    source = tokenizer_source(args.model, args.adapter)
    tokenizer = load_tokenizer(source, trust_remote_code=args.trust_remote_code)
    check_vocabulary(args.model, tokenizer, model.config)
    if args.chat_template_path is not None:
        tokenizer.chat_template = Path(args.chat_template_path).read_text(encoding="utf-8")
    return _with_adapter(args, model), tokenizer


def _with_adapter(args: ImportanceArguments, model: Any) -> Any:
    if args.adapter:
        return load_adapter(model, args.adapter, is_trainable=True)
    if args.space == "adapter":
        return model
    targets = args.lora_target_modules
    config = LoraConfig(
        r=1,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        modules_to_save=args.lora_modules_to_save,
        task_type="CAUSAL_LM",
    )
    check_modules_to_save(model, args.lora_modules_to_save)
    return get_peft_model(model, config)


def _tokenized_rows(args: ImportanceArguments, model: Any, tokenizer: Any) -> list[TokenizedRow]:
    rows = safety_rows(SafeScriptArguments(safety_dataset_name=args.safety_dataset))
    config = SafeSFTConfig(
        args.output,
        max_length=args.max_length,
        replay_max_new_tokens=args.max_new_tokens,
        bf16=False,
        report_to="none",
    )
    return SafetySet.read(rows).tokenize(model, tokenizer, config)
