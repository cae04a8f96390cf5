"""Attack success during training: logged, a metric of evaluations, and a reason to stop."""

import pytest
from transformers import EarlyStoppingCallback

from safe_sft import SafeSFTTrainer
from safe_sft.evaluation import Verdict
from safe_sft.evaluation.judges import Judge
from safe_sft.trainer.callbacks import SafetyEvalCallback, why_stopped
from tests.conftest import logged, make_config, make_model, make_tokenizer, task_rows, trained_weights

PROMPTS = [f"bad {i}" for i in range(12)]


class Worsening(Judge):
    """Says `complied` of one answer more each time it is asked."""

    name = "worsening"

    def __init__(self):
        self.calls = 0

    def judge(self, prompts, answers):
        self.calls += 1
        return [Verdict.COMPLIED if i < self.calls else Verdict.REFUSED for i in range(len(answers))]


def trainer_with(tmp_path, judge, callback_options, **config):
    trainer = SafeSFTTrainer(
        make_model(),
        make_config(tmp_path, safety_method="none", max_steps=4, **config),
        train_dataset=task_rows(),
        eval_dataset=task_rows(4),
        processing_class=make_tokenizer(),
    )
    # Answers of random weights may say nothing; the judge must see every one of them.
    trainer.add_callback(
        SafetyEvalCallback(trainer, PROMPTS, judge=judge, **{"size": 8, "max_new_tokens": 3, **callback_options})
    )
    return trainer


def test_it_is_logged_at_evaluations_and_every_few_steps(tmp_path):
    trainer = trainer_with(tmp_path, Worsening(), {"steps": 1}, eval_strategy="steps", eval_steps=2)
    trainer.train()
    rows = [entry for entry in trainer.state.log_history if "eval_asr" in entry]
    assert [entry["step"] for entry in rows] == [1, 2, 3, 4]
    assert [entry["eval_asr"] for entry in rows] == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
    assert all(entry["eval_asr_low"] < entry["eval_asr"] < entry["eval_asr_high"] for entry in rows)


def test_it_chooses_the_best_checkpoint(tmp_path):
    config = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_asr",
        "greater_is_better": False,
    }
    trainer = trainer_with(tmp_path, Worsening(), {}, **config)
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    assert trainer.state.best_metric == 1 / 8
    assert trainer.state.global_step == 3  # two evaluations without an improvement
    assert trainer.evaluate()["eval_asr"] == 4 / 8  # measured anew


def test_it_stops_a_model_that_surely_forgot(tmp_path):
    trainer = trainer_with(tmp_path, Worsening(), {"steps": 1, "max_asr": 0.1})
    trainer.train()
    # 3 of 8 is the first whose interval, [0.137, 0.694], lies above 0.1.
    assert trainer.state.global_step == 3
    assert logged(trainer, "eval_asr")[-1] == 3 / 8


def test_it_changes_nothing_else(tmp_path):
    with_it = trainer_with(tmp_path / "a", Worsening(), {"steps": 1})
    without = trainer_with(tmp_path / "b", Worsening(), {})
    for trainer in (with_it, without):
        trainer.train()
    assert all((a == b).all() for a, b in zip(*(trained_weights(t).values() for t in (with_it, without)), strict=True))
    assert logged(with_it, "loss") == logged(without, "loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "`steps=0`"), ({"max_asr": 2}, "is not a share"), ({"size": 0}, "at least 1")],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer_with(tmp_path, Worsening(), options)


def test_a_model_that_says_nothing_is_stopped_and_has_no_number(tmp_path):
    class Mute(Judge):
        name = "mute"

        def judge(self, prompts, answers):
            return [Verdict.DEGENERATE] * len(answers)

    trainer = trainer_with(tmp_path, Mute(), {"steps": 1, "max_asr": 1.0})
    trainer.train()
    assert trainer.state.global_step == 1
    assert "not measurable (100 % degenerate)" in why_stopped(trainer)
    entry = next(e for e in trainer.state.log_history if "eval_asr" in e)
    assert (entry["eval_asr"], entry["eval_asr_degenerate"], entry["eval_asr_unjudged"]) == (float("inf"), 1.0, 0.0)
