"""The teacher on disk: exact, continued after a kill, refused for another model, and read row by row."""

import json
import math
import struct
import subprocess
import sys
from functools import partial

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open

from safe_sft.data import TokenizedRow
from safe_sft.models.parts import backbone
from safe_sft.replay import CachedTeacher, HiddenStateTap, ReplayBatch, TeacherCache, build_teacher_cache, cache
from safe_sft.storage.names import TEACHER_INDEX, teacher_part
from tests.conftest import logged, lora, make_model, make_trainer, safety_rows, trained_weights

ROWS = [TokenizedRow([1, *range(10, 12 + i)], [-100, *range(10, 12 + i)]) for i in range(40)]
WHO = {"model": "tiny", "rows": "abc"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(cache, "_ROWS_PER_PART", 8)


def build(folder, model=None, provenance=WHO, batch_size=4) -> TeacherCache:
    model = model or make_model()
    tap = HiddenStateTap(backbone(model), pad_token_id=0)
    states = partial(tap.forward_rows, model)
    return build_teacher_cache(
        folder, states, model, ROWS, provenance, batch_size=batch_size, device=torch.device("cpu")
    )


def test_states_are_those_of_each_row_alone(tmp_path):
    model = make_model().to(torch.float64)
    found = build(tmp_path, model)
    for row in (0, 7, 39):
        with torch.no_grad():
            states = model.model(torch.tensor([ROWS[row].input_ids])).last_hidden_state[0, :-1]
        torch.testing.assert_close(found.rows([row]), states)
    assert torch.equal(found.rows([7, 0]), torch.cat([found.rows([7]), found.rows([0])]))


def test_a_killed_build_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    build(tmp_path / "whole")
    calls = []
    forward = HiddenStateTap.forward_rows

    def dies_at_the_fifth(self, *arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(self, *arguments)

    monkeypatch.setattr(HiddenStateTap, "forward_rows", dies_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "parts")
    with pytest.raises(FileNotFoundError, match=r"is incomplete. Build it with `safe-sft teacher`"):
        TeacherCache(tmp_path / "parts")
    build(tmp_path / "parts")
    assert len(calls) == 5 + 10 - 4  # two whole parts were kept
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "parts").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_build_that_goes_on_in_smaller_batches_gives_each_row_its_states(tmp_path):
    whole = build(tmp_path / "whole")
    build(tmp_path / "parts")
    for name in (TEACHER_INDEX, teacher_part(3), teacher_part(4)):
        (tmp_path / "parts" / name).unlink()
    parts = build(tmp_path / "parts", batch_size=3)
    for row in range(len(ROWS)):
        torch.testing.assert_close(parts.rows([row]), whole.rows([row]))


def test_another_models_cache_is_refused_complete_or_not(tmp_path):
    build(tmp_path)
    message = r"belongs to something else: its model is 'tiny', that of this run is 'big'.*`teacher_cache`"
    with pytest.raises(ValueError, match=message):
        build(tmp_path, provenance={**WHO, "model": "big"})
    (tmp_path / TEACHER_INDEX).unlink()
    with pytest.raises(ValueError, match=message):
        build(tmp_path, provenance={**WHO, "model": "big"})


def test_reading_needs_no_memory_for_the_rest(tmp_path):
    """Four gigabytes of states (a sparse file), a few rows read, under 300 MB of memory more."""
    tokens, rows = 500_000, 1000
    header = {"states": {"dtype": "F32", "shape": [tokens, 2048], "data_offsets": [0, tokens * 8192]}}
    text = json.dumps(header).encode()
    with open(tmp_path / teacher_part(0), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + tokens * 8192)
    index = {"provenance": {}, "parts": [[[row, tokens // rows] for row in range(rows)]]}
    (tmp_path / TEACHER_INDEX).write_text(json.dumps(index))
    code = f"""
import resource
from safe_sft.replay import TeacherCache
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
cache = TeacherCache({str(tmp_path)!r})
for row in (0, 500, 999, 3):
    assert cache.rows([row, 1]).shape == (1000, 2048)
assert peak() - before < 300, peak() - before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_training_from_the_cache_equals_training_online(tmp_path):
    settings = {"teacher_divergence": "squared", "safety_weight": 1.0}
    runs = {teacher: make_trainer(tmp_path, teacher=teacher, **settings) for teacher in ("online", "cached")}
    for trainer in runs.values():
        trainer.train()
    online, cached = (logged(trainer, "safety/der") for trainer in runs.values())
    assert cached == pytest.approx(online, rel=1e-2, abs=1e-8)  # the second step is a hair's breadth off the anchor
    assert trained_weights(runs["cached"]).keys() == trained_weights(runs["online"]).keys()


def test_the_cache_names_what_differs(tmp_path):
    folder = str(tmp_path / "teacher")
    make_trainer(tmp_path, teacher="cached", teacher_cache=folder)
    make_trainer(tmp_path, teacher="cached", teacher_cache=folder)  # used again
    with pytest.raises(ValueError, match=r"its rows is"):
        make_trainer(tmp_path, teacher_cache=folder, safety=safety_rows(3))
    with pytest.raises(ValueError, match=r"its (matrices|vectors) is"):
        make_trainer(tmp_path, teacher_cache=folder, model=make_model(seed=9))


def test_a_batch_looks_its_rows_up(tmp_path):
    found = build(tmp_path)
    batch = ReplayBatch.of(ROWS, [5, 1], torch.device("cpu"))
    assert len(found.rows(batch.rows)) == len(batch.targets)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_states_are_stored_as_they_are_computed_and_nothing_else_is(tmp_path, dtype):
    """Rounding a float32 model's states to bfloat16 would halve the file, and put the term off 0 at the anchor."""
    model = make_model(dtype=dtype, vocab_size=4096)
    build(tmp_path, model)
    tokens = sum(row.supervised_tokens for row in ROWS)
    files = list(tmp_path.glob("part-*.safetensors"))
    slices = [safe_open(file, framework="pt").get_slice("states") for file in files]
    assert {states.get_dtype() for states in slices} == {"BF16" if dtype == torch.bfloat16 else "F32"}
    states_bytes = sum(math.prod(states.get_shape()) for states in slices) * dtype.itemsize
    logits_bytes = tokens * 4096 * dtype.itemsize
    assert logits_bytes / states_bytes == 4096 / 32  # vocabulary / hidden size
    # Beside the states: a header a part, and the index.
    assert sum(file.stat().st_size for file in files) - states_bytes < 512 * len(files)
    assert (tmp_path / TEACHER_INDEX).stat().st_size < 16 * len(ROWS) + 256


def test_base_weights_trained_beside_an_adapter_have_a_cached_teacher(tmp_path):
    """With the adapter switched off, they would still be the tuned ones."""
    model = get_peft_model(make_model(attention_bias=True), lora(bias="all"))
    trainer = make_trainer(tmp_path, model=model, peft=None)
    assert isinstance(trainer.teacher, CachedTeacher)
    with pytest.raises(ValueError, match=r"tuned in full or beside its adapter.*`teacher: cached`"):
        make_trainer(tmp_path, model=model, peft=None, teacher="online")
    with pytest.raises(ValueError, match=r"base weights trained beside it.*choose `der`"):
        make_trainer(tmp_path, "lwf", model=model, peft=None)
