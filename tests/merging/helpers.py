"""Models and adapters saved in folders, and their tensors read back."""

import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.conftest import make_model, make_tokenizer

IDS = torch.tensor([[1, 7, 30, 200, 12]])


def saved(folder, seed=0, tokenizer=True, **settings):
    """A tiny model in `folder`; returns its name."""
    shard = {"max_shard_size": settings.pop("max_shard_size")} if "max_shard_size" in settings else {}
    make_model(seed, **settings).save_pretrained(folder, **shard)
    if tokenizer:
        make_tokenizer().save_pretrained(folder)
    return str(folder)


def saved_adapter(folder, base, seed=1, **settings):
    """A LoRA with random factors on the model in `base`; returns its name."""
    config = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of adapted embeddings
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**config))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in (p for p in model.parameters() if p.requires_grad):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        model.save_pretrained(folder)
    return str(folder)


def tensors(folder) -> dict[str, Tensor]:
    """All tensors of a folder."""
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def logits(model) -> Tensor:
    """Of a few tokens."""
    with torch.no_grad():
        return model.eval()(IDS).logits


def random(*shape, seed=0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(base, adapter) -> dict[str, Tensor]:
    """PEFT's own merge of an adapter into its base, by name."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    return model.merge_and_unload().state_dict()


EMBEDDING = "model.embed_tokens.weight"


def as_maps(name, *matrices) -> list[Tensor]:
    """Stored tensors as `(d_out, d_in)`: an embedding maps tokens to states."""
    return [matrix.T if name == EMBEDDING else matrix for matrix in matrices]


def naive_projection(aligned, base, update) -> tuple[Tensor, float]:
    """Safe LoRA's `C·ΔW` and its cosine with ΔW, from C itself and in float64."""
    v = aligned.double() - base.double()
    after = v @ v.T / v.norm() @ update.double()
    return after, (after * update.double()).sum().item() / (after.norm() * update.double().norm()).item()
