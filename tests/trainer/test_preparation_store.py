"""What is computed before training is computed once for all runs that would compute the same, and changes nothing."""

import threading
import time

import pytest
import torch

from safe_sft.importance import Importance, shared
from safe_sft.storage.made_once import made_once
from safe_sft.trainer import kept_answers
from tests.conftest import make_trainer, safety_rows

PROMPTS = [{"prompt": row["prompt"]} for row in safety_rows()]


def forbidden(*_, **__):
    raise AssertionError("this is in the store")


def names(folder, kind):
    return sorted(path.name for path in folder.glob(f"{kind}-*"))


def test_the_models_own_answers_are_asked_once(tmp_path, monkeypatch):
    store = tmp_path / "store"
    plain = make_trainer(tmp_path / "a", "er", safety=PROMPTS, replay_max_new_tokens=5)._tokenized_rows()
    kept = make_trainer(tmp_path / "b", "er", safety=PROMPTS, replay_max_new_tokens=5, preparation_store=str(store))
    assert kept._tokenized_rows() == plain
    with monkeypatch.context() as patch:
        patch.setattr(kept_answers, "answer_prompts", forbidden)
        again = make_trainer(
            tmp_path / "c", "der", safety=PROMPTS, replay_max_new_tokens=5, preparation_store=str(store)
        )
        assert again._tokenized_rows() == plain
    assert len(names(store, "answers")) == 1
    for changed in ({"replay_max_new_tokens": 4}, {"safety": PROMPTS[1:]}, {"seed": 8}):  # the seed draws the adapter
        options = {"safety": PROMPTS, "replay_max_new_tokens": 5, **changed}
        make_trainer(tmp_path / "d", "er", preparation_store=str(store), **options)._tokenized_rows()
    assert len(names(store, "answers")) == 4


def test_a_teacher_cache_is_built_once(tmp_path):
    store = tmp_path / "store"
    for name, method in (("a", "der"), ("b", "safegrad"), ("c", "der")):
        trainer = make_trainer(tmp_path / name, method, peft=False, preparation_store=str(store))
        assert trainer.teacher.folder.parent == store
        assert not list((tmp_path / name).glob("_teacher*"))
    assert len(names(store, "teacher")) == 1
    make_trainer(tmp_path / "d", "der", peft=False, safety=safety_rows(5), preparation_store=str(store))
    assert len(names(store, "teacher")) == 2


def test_the_losses_on_the_task_are_computed_once(tmp_path):
    store = tmp_path / "store"
    for name, rate in (("a", 0.1), ("b", 0.2)):
        make_trainer(tmp_path / name, "csft", peft=False, learning_rate=rate, preparation_store=str(store))
    assert len(names(store, "task-losses")) == 1
    assert not list(tmp_path.glob("*/_task-losses*"))


@pytest.mark.parametrize("peft", [True, False])
def test_importance_is_estimated_once(tmp_path, monkeypatch, peft):
    store = tmp_path / "store"
    one = make_trainer(tmp_path / "a", "ewc", peft=peft, preparation_store=str(store))
    with monkeypatch.context() as patch:
        patch.setattr(shared, "build_importance", forbidden)
        two = make_trainer(tmp_path / "b", "ewc", peft=peft, seed=9, preparation_store=str(store))
    mine, theirs = (trainer._terms.methods[0]._space.importance() for trainer in (one, two))
    assert mine.keys() == theirs.keys()
    assert all((mine[name] == theirs[name]).all() for name in mine)
    alone = make_trainer(tmp_path / "c", "ewc", peft=peft)._terms.methods[0]._space.importance()
    for name in alone:
        torch.testing.assert_close(mine[name], alone[name], rtol=2**-7, atol=1e-6)  # it is kept in bfloat16
    assert len(names(store, "importance")) == 1
    make_trainer(tmp_path / "d", "mas", peft=peft, preparation_store=str(store))
    make_trainer(tmp_path / "e", "ewc", peft=peft, safety=safety_rows(5), preparation_store=str(store))
    assert len(names(store, "importance")) == 3


def test_the_importance_of_the_stage_before_is_added(tmp_path):
    store = str(tmp_path / "store")
    make_trainer(tmp_path / "a", "ewc", preparation_store=store)
    before = tmp_path / "a" / "_importance"
    options = {"importance_previous": str(before), "importance_decay": 0.5, "safety": safety_rows(3)}
    trainer = make_trainer(tmp_path / "b", "ewc", preparation_store=store, **options)
    make_trainer(tmp_path / "c", "ewc", preparation_store=store, safety=safety_rows(3))
    old, new = (
        Importance.load(folder).normalized("none").tensors for folder in (before, tmp_path / "c" / "_importance")
    )
    total = Importance.load(tmp_path / "b" / "_importance").normalized("none").tensors
    for name in new:
        torch.testing.assert_close(total[name], 0.5 * old[name] + new[name], rtol=2**-6, atol=0)
    used = trainer._terms.methods[0]._space.importance()
    factor = {name: (value / total[name]).nanmean().item() for name, value in used.items()}
    assert all(abs(value / next(iter(factor.values())) - 1) < 0.01 for value in factor.values())


def test_who_comes_second_waits_for_the_first(tmp_path):
    order = []

    def second():
        with made_once(tmp_path / "store" / "it"):
            order.append("second")

    with made_once(tmp_path / "store" / "it"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
