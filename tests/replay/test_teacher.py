"""One rule says which teacher a run has; the trainer, its checks and the plan ask it."""

import pytest

from safe_sft.planning.teacher import has_cached_teacher
from safe_sft.replay import teacher_kind
from tests.conftest import make_trainer


@pytest.mark.parametrize(
    ("teacher", "cache", "switchable", "kind"),
    [
        (None, None, True, "online"),
        (None, None, False, "cached"),
        (None, "folder", True, "cached"),
        ("cached", None, True, "cached"),
        ("online", None, True, "online"),
    ],
)
def test_which_teacher(teacher, cache, switchable, kind):
    assert teacher_kind(teacher, cache, switchable=switchable) == kind


@pytest.mark.parametrize(
    ("peft", "settings"),
    [(True, {}), (True, {"teacher": "cached"}), (True, {"teacher_cache": "cache"}), (False, {})],
    ids=["fresh adapter", "asked for", "named", "full"],
)
def test_the_plan_has_the_teacher_that_the_trainer_has(tmp_path, monkeypatch, peft, settings):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(tmp_path, "der", peft=peft, **settings)
    assert (trainer.teacher.kind == "cached") == has_cached_teacher(trainer.args, fresh=peft)
    assert trainer.facts.teacher == trainer.teacher.kind
