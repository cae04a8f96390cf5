"""Liger's layer kernels against plain layers: the same updates, for every kind of safety term.

Run by hand, since Triton is no dependency: its interpreter runs the kernels on CPU (slow), a GPU as they are.

    pip install --no-deps triton==3.7.1 liger-kernel==0.8.5
    TRITON_INTERPRET=1 python -m tests.trainer.liger_by_hand
"""

import os
import tempfile

import torch

from tests.conftest import make_trainer

METHODS = ("none", "der", "er", "lwf", "der+er+l2+lwf")


def interpret_what_liger_needs() -> None:
    """Fill two gaps of the interpreter of Triton 3.7: arguments that are floats, and `libdevice.rsqrt`."""
    import liger_kernel.ops.rms_norm as rms_norm
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._implicit_cvt

    def implicit_cvt(value: object) -> object:
        if not isinstance(value, float):
            return convert(value)
        return tl.tensor(interpreter.TensorHandle(np.array([value], dtype=np.float32), tl.float32), tl.float32)

    interpreter._implicit_cvt = implicit_cvt
    rms_norm.rsqrt = lambda x: tl.math.rsqrt(x)


def updates(method: str, **fields: object) -> torch.Tensor:
    """What two steps make of the trained weights, in one vector."""
    trainer = make_trainer(tempfile.mkdtemp(), method, max_steps=2, **fields)
    before = torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])
    trainer.train()
    patched = "Liger" in trainer.model.get_base_model().model.norm.forward.__qualname__
    assert patched == bool(fields), "Liger's kernels are not where they should be"
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad]) - before


def main() -> None:
    if os.environ.get("TRITON_INTERPRET"):
        interpret_what_liger_needs()
    plain = {method: updates(method) for method in METHODS}  # first: the kernels stay for the whole process
    for method in METHODS:
        error = (updates(method, use_liger_kernel=True) - plain[method]).norm() / plain[method].norm()
        print(f"{method:<16} relative difference of the updates {error:.1e}")
        assert error < 1e-4


if __name__ == "__main__":
    main()
