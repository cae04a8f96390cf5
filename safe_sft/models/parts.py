"""The parts of a model: the base in a PEFT wrapper, the backbone, the language-model head."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..losses import Head, centred_logit_gram, logit_gram
from .sharding import whole


def is_peft_model(model: nn.Module) -> bool:
    """Return whether `model` is wrapped by PEFT, whatever wraps it in turn (torch.compile, DeepSpeed).

    It is asked in every step, so it neither imports PEFT nor looks through the modules.
    """
    return hasattr(model, "get_base_model")


def is_quantised(weight: Tensor) -> bool:
    """Return whether `weight` is quantised; bitsandbytes may store packed bits as floating-point numbers."""
    return not weight.is_floating_point() or hasattr(weight, "quant_state")


def base_model(model: nn.Module) -> PreTrainedModel:
    """Return the `transformers` model inside a PEFT wrapper, or `model` itself."""
    return model.get_base_model() if is_peft_model(model) else model  # type: ignore[operator,return-value]


def vocabulary_size(model: nn.Module) -> int:
    """Return how many tokens a model has rows for, also where PEFT wraps its embeddings or they are sharded."""
    found: Any = base_model(model).get_input_embeddings()
    while not hasattr(found, "num_embeddings"):
        found = found.get_base_layer() if hasattr(found, "get_base_layer") else found.original_module
    return int(found.num_embeddings)


def backbone(model: nn.Module) -> nn.Module:
    """Return the module whose output has `.last_hidden_state`: everything but the language-model head.

    Models such as OPT call the decoder inside their base model, and TRL calls the base model: both run the decoder.
    """
    inner = base_model(model)
    found = inner.base_model
    if found is inner:
        raise ValueError(
            f"{type(inner).__name__} has no separate backbone and head, so its hidden states cannot be read. "
            "Load the model with `AutoModelForCausalLM`."
        )
    decoder = getattr(found, "decoder", None)
    is_inside = isinstance(decoder, PreTrainedModel) and not hasattr(found, "encoder")
    return decoder if is_inside and inner.get_decoder() is decoder else found


@dataclass(frozen=True)
class LogitHead(Head):
    """The head of a model, and whether training changes it.

    Attributes:
        trained: whether the optimizer changes `weight` or `bias`.
    """

    trained: bool = False

    @classmethod
    def of(cls, model: nn.Module) -> "LogitHead":
        """Read the head of `model`.

        Raises:
            ValueError: when the head is quantised.
        """
        inner = base_model(model)
        head = inner.get_output_embeddings()
        weight, bias = head.weight, getattr(head, "bias", None)
        if is_quantised(weight):
            raise ValueError(
                f"The language-model head is quantised ({weight.dtype}), so logits cannot be compared. "
                "Leave it out with `llm_int8_skip_modules=['lm_head']` in `BitsAndBytesConfig`."
            )
        config = inner.config.get_text_config()
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        return cls(weight, bias, _logit_scale(config), _softcap(config), trained)

    @property
    def spares_logits(self) -> bool:
        """Whether squared distances of logits follow from hidden states alone: the head is fixed and linear."""
        return not self.trained and self.softcap is None

    def gram(self, live: Tensor | None = None) -> Tensor:
        """Return `scale² WᵀW`, with which a head that `spares_logits` measures squared distances of logits.

        Args:
            live: where given, the words that count, `(vocab,)` of bool; the logits are then centred over them.
        """
        weight = self.gathered().weight.detach()
        gram = logit_gram(weight) if live is None else centred_logit_gram(weight, live)
        return gram * self.scale**2

    def frozen_copy(self) -> "LogitHead":
        """Return a copy of the head as it is now, which training does not change."""
        bias = None if self.bias is None else self.bias.detach().clone()
        return replace(self, weight=self.weight.detach().clone(), bias=bias, trained=False)

    def to(self, device: torch.device) -> "LogitHead":
        """Return the head on `device`."""
        return replace(self, weight=self.weight.to(device), bias=None if self.bias is None else self.bias.to(device))

    def gathered(self) -> "LogitHead":
        """Return the head with whole tensors, where FSDP2 or ZeRO-3 shards them."""
        return replace(self, weight=whole(self.weight), bias=None if self.bias is None else whole(self.bias))


def _softcap(config: object) -> float | None:
    """Return the cap that an architecture puts on its logits: Gemma's, RecurrentGemma's and xLSTM's name of it."""
    names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return next((float(cap) for name in names if (cap := getattr(config, name, None)) is not None), None)


def _logit_scale(config: object) -> float:
    """Return the constant factor that an architecture puts on its logits, from the fields that TRL's head reads."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    divisor = getattr(config, "logits_scaling", None)
    if divisor is None:
        return 1.0
    return float(divisor) if getattr(config, "model_type", "") == "hyperclovax" else 1.0 / divisor
