"""The model, the tokenizer and the rows that `safe-sft importance` estimates with."""

import argparse
from pathlib import Path
from typing import Any


def _load(args: argparse.Namespace) -> tuple[Any, Any]:
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from ..models.folders import tokenizer_source

    device = PartialState().device
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="bfloat16",
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        args.model,
        dtype=args.dtype,
        trust_remote_code=args.trust_remote_code,
        quantization_config=nf4 if args.load_in_4bit else None,
        device_map={"": device},
    )
    source = tokenizer_source(args.model, args.adapter)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=args.trust_remote_code)
    if args.chat_template_path is not None:
        tokenizer.chat_template = Path(args.chat_template_path).read_text(encoding="utf-8")
    return _with_adapter(args, model), tokenizer


def _with_adapter(args: argparse.Namespace, model: Any) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model

    if args.adapter:
        return PeftModel.from_pretrained(model, args.adapter, is_trainable=True)
    if args.space == "adapter":
        return model
    targets = args.lora_target_modules
    config = LoraConfig(
        r=1,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        modules_to_save=args.lora_modules_to_save,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _rows(args: argparse.Namespace, model: Any, tokenizer: Any) -> list:
    from ..config.safe_sft_config import SafeSFTConfig
    from ..data import load_rows
    from ..trainer.safety_set import SafetySet

    dataset = load_rows(args.safety_dataset, split="train") if args.safety_dataset else None
    config = SafeSFTConfig(
        args.output,
        max_length=args.max_length,
        replay_max_new_tokens=args.max_new_tokens,
        bf16=False,
        report_to="none",
    )
    return SafetySet.read(dataset).tokenize(model, tokenizer, config)
