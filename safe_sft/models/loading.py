"""Loads a model to be measured, from disk or the Hub."""

from typing import Any

from accelerate import PartialState
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from .folders import tokenizer_source


def load_model(
    name: str, adapter: str | None = None, dtype: str = "auto", trust_remote_code: bool = False
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Load a model, with an adapter where one is given, onto the device of this process, in eval mode.

    Args:
        name: folder or Hub name of the model.
        adapter: PEFT adapter folder or Hub name. The tokenizer and its template are the adapter's, if it has its own.
        dtype: `auto` or the name of a torch dtype.
        trust_remote_code: whether to run code that comes with the model.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=trust_remote_code)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_source(name, adapter), trust_remote_code=trust_remote_code)
    return model.to(PartialState().device).eval(), tokenizer
