"""What TRL does on GPUs alone, run on CPU: the device or the kernel is a stand-in, the code around it the real one."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import transformers.modeling_flash_attention_utils as flash
from accelerate import Accelerator
from torch import nn
from torch.autograd.graph import save_on_cpu
from transformers import PreTrainedModel, modeling_utils
from trl.models import activation_offloading

from tests.conftest import make_model, make_trainer, move_off_the_anchor, trained_weights
from tests.trainer.test_ways_to_train import EVERYTHING


class Stream:
    """A stream, or an event, of a device that does everything at once."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: Stream()


class CpuAsDevice:
    """`torch`, where the CPU passes for the accelerator."""

    accelerator = SimpleNamespace(current_accelerator=lambda: torch.device("cpu"))

    def __getattr__(self, name):
        return getattr(torch, name)

    @staticmethod
    def get_device_module(_):
        return SimpleNamespace(
            Stream=Stream, current_stream=Stream, stream=lambda _: nullcontext(), empty_cache=lambda: None
        )

    @staticmethod
    def empty(*args, pin_memory, **fields):
        return torch.empty(*args, **fields)

    @staticmethod
    def empty_like(*args, pin_memory, **fields):
        return torch.empty_like(*args, **fields)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["none", EVERYTHING])
def test_activation_offloading_changes_nothing(tmp_path, method, checkpointing, monkeypatch):
    monkeypatch.setattr(activation_offloading, "torch", CpuAsDevice())
    weights = []
    for offload in (False, True):
        trainer = make_trainer(
            tmp_path,
            method,
            activation_offloading=offload,
            gradient_checkpointing=checkpointing,
            gradient_accumulation_steps=2,
        )
        copied = count_offloaded(trainer) if offload else []
        trainer.train()
        weights.append(trained_weights(trainer))
    assert sum(copied) > 0
    for name, plain in weights[0].items():
        assert torch.equal(plain, weights[1][name])


def count_offloaded(trainer) -> list[int]:
    manager, copied = trainer.maybe_activation_offload_context, []
    pack = manager.pack_hook

    def counting(tensor):
        key = pack(tensor)
        copied.append(manager.tracker[key][1])
        return key

    manager.pack_hook = counting
    return copied


@pytest.mark.parametrize("kind", [{"every_n_layers": 2}, {"offload": True}], ids=str)
def test_kinds_of_checkpointing_change_nothing(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(modeling_utils, "save_on_cpu", lambda **_: save_on_cpu(pin_memory=False))
    weights = []
    for fields in ({}, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": kind}):
        trainer = make_trainer(tmp_path, EVERYTHING, **fields)
        move_off_the_anchor(trainer)
        trainer.train()
        weights.append(trained_weights(trainer))
    for name, plain in weights[0].items():
        assert torch.equal(plain, weights[1][name])


def attend(q, k, v, softmax_scale=None, causal=False, **_):
    """`(batch, tokens, heads, d)`: a FlashAttention kernel's arguments, computed by PyTorch."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal and q.size(2) > 1, scale=softmax_scale, enable_gqa=True
    )
    return out.transpose(1, 2)


@pytest.fixture
def flash_attention(monkeypatch):
    """FlashAttention 2 as transformers calls it, with a kernel in PyTorch. Yields the calls of the varlen kernel."""
    calls = []

    def varlen(*args, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=None, causal=False):
        calls.append(cu_seqlens_q.tolist())
        spans = zip(calls[-1], calls[-1][1:], strict=False)
        return torch.cat([attend(*(x[None, a:b] for x in args), softmax_scale, causal)[0] for a, b in spans])

    kernels = (attend, varlen, None, flash._pad_input, flash._unpad_input)
    monkeypatch.setattr(flash, "_lazy_imports", lambda *_, **__: kernels)
    monkeypatch.setattr(flash, "_loaded_implementation", None)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    return calls


PADDED, PADDING_FREE, PACKED = {}, {"padding_free": True, "max_length": None}, {"packing": True, "max_length": 64}


@pytest.mark.parametrize("batches", [PADDED, PADDING_FREE, PACKED], ids=str)
def test_flash_attention(tmp_path, batches, flash_attention):
    weights = []
    for implementation in ("sdpa", "flash_attention_2"):
        model = make_model(attn_implementation=implementation)
        trainer = make_trainer(tmp_path, EVERYTHING, model=model, **batches)
        move_off_the_anchor(trainer)
        trainer.train()
        weights.append(trained_weights(trainer))
    assert any(len(lengths) > 2 for lengths in flash_attention)
    for name, plain in weights[0].items():
        torch.testing.assert_close(plain, weights[1][name], rtol=1e-4, atol=1e-5)


@pytest.fixture
def fp16_on_cpu(monkeypatch):
    """Autocast and the gradient scaler as accelerate sets them up on a GPU. Takes the first scale."""
    init = Accelerator.__init__

    def scaled(scale):
        def start(self, *args, **fields):
            init(self, *args, **fields)
            self.native_amp, self.scaler = True, torch.amp.GradScaler("cpu", init_scale=scale)

        monkeypatch.setattr(Accelerator, "__init__", start)

    return scaled


def test_fp16_with_its_scaled_loss(tmp_path, fp16_on_cpu):
    updates = []
    for scale in (None, 2.0**4, 2.0**12):
        if scale:
            fp16_on_cpu(scale)
        trainer = make_trainer(tmp_path, EVERYTHING, fp16=scale is not None, safety_weight="0.001+1+1+1")
        move_off_the_anchor(trainer)
        before = trained_weights(trainer)
        trainer.train()
        assert trainer.accelerator.optimizer_step_was_skipped is False
        updates.append(torch.cat([(p - before[name]).flatten() for name, p in trained_weights(trainer).items()]))
    full, low, high = updates
    assert 1e-5 * full.norm() < (low - full).norm() < 0.02 * full.norm()
    assert (high - low).norm() < 0.01 * full.norm()
