"""A base, a model aligned from it, and models tuned from that one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.merging.helpers import random, saved, tensors


@pytest.fixture
def chain(tmp_path):
    """Make models in folders `b` (base), `a` (aligned from it), `t` and `s` (tuned from that): a small step each."""

    def make(dtype=torch.float32, **settings):
        names = {name: saved(tmp_path / name, dtype=dtype, **settings) for name in "bats"}
        for seed, (name, start) in enumerate({"a": "b", "t": "a", "s": "a"}.items(), start=1):
            before = tensors(tmp_path / start)
            for shard in Path(names[name]).glob("*.safetensors"):
                steps = {key: 0.05 * random(*before[key].shape, seed=10 * seed) for key in load_file(shard)}
                content = {key: before[key] + step.to(dtype) for key, step in steps.items()}
                save_file(content, shard, metadata={"format": "pt"})
        return names

    return make
