"""What dashboards get, through transformers' own reporters: TensorBoard's files; recorders stand in for the rest."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.integrations import integration_utils as theirs

from safe_sft.evaluation import Verdict
from safe_sft.evaluation.judges import Judge
from safe_sft.trainer.callbacks import FirstLog, SafetyEvalCallback
from tests.conftest import make_trainer, task_rows

BEFORE = {"safety/asr_before": 0.25, "safety/asr_before_low": 0.1, "safety/asr_before_high": 0.5}


class Half(Judge):
    name = "half"

    def judge(self, prompts, answers):
        return [(Verdict.COMPLIED, Verdict.REFUSED)[i % 2] for i in range(len(answers))]


class Recorder:
    """What a library of a dashboard is given: `(name, step) -> value`; every other call is taken."""

    def __init__(self):
        self.seen = {}
        self.config, self.summary, self.run = {}, {}, SimpleNamespace(summary={}, _label=lambda **_: None)
        self.context_vars = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))

    def log(self, values):
        step = values.get("train/global_step")
        self.seen |= {(name, step): value for name, value in values.items()}

    def __getattr__(self, name):
        return lambda *_, **__: None


class Config(dict):
    def update(self, *values, **_):
        super().update(*values)


def written(folder) -> dict[tuple[str, int], float]:
    """Read the event files of the one run in `folder`, as TensorBoard shows them."""
    (run,) = folder.iterdir()
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {(name, event.step): event.value for name in events.Tags()["scalars"] for event in events.Scalars(name)}


def library(monkeypatch, name) -> Recorder:
    recorder = Recorder()
    recorder.config = Config()
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: getattr(recorder, attribute)
    monkeypatch.setitem(sys.modules, name, module)
    if name == "wandb":
        for part in ("wandb.sdk", "wandb.sdk.lib", "wandb.sdk.lib.config_util"):
            monkeypatch.setitem(sys.modules, part, ModuleType(part))
        sys.modules["wandb.sdk.lib.config_util"].ConfigError = ValueError
    monkeypatch.setattr(theirs, f"is_{name}_available", lambda: True)
    return recorder


@pytest.mark.parametrize("reporter", ["tensorboard", "wandb", "trackio"])
def test_every_number_reaches_the_dashboard_with_its_step(tmp_path, monkeypatch, reporter):
    recorder = None if reporter == "tensorboard" else library(monkeypatch, reporter)
    trainer = make_trainer(
        tmp_path, "der+agem", safety_weight="auto", report_to=reporter, evaluation=task_rows(4), run_name="run"
    )
    trainer.add_callback(
        SafetyEvalCallback(trainer, [f"bad {i}" for i in range(8)], judge=Half(), steps=1, max_new_tokens=3)
    )
    trainer.add_callback(FirstLog(trainer, BEFORE))
    trainer.train()
    trainer.log({"safety/asr_after": 0.5})
    seen = recorder.seen if recorder else written(tmp_path / "runs")
    for name, value in BEFORE.items():
        assert seen[f"train/{name}", 0] == pytest.approx(value)
    for step in (1, 2):
        names = {name for name, at in seen if at == step}
        assert names >= {
            *("train/loss", "train/task_loss", "train/safety_loss", "train/safety/der", "train/safety/agem"),
            *("train/safety/der_weight", "train/safety/agem_projected", "train/safety/agem_cosine"),
            *("eval/asr", "eval/asr_low", "eval/asr_high", "eval/asr_degenerate", "eval/asr_unjudged"),
        }
        assert seen["eval/asr_low", step] < seen["eval/asr", step] < seen["eval/asr_high", step]
    assert seen["train/safety/asr_after", 2] == 0.5


def test_what_was_before_is_in_the_log_of_the_run_once(tmp_path):
    trainer = make_trainer(tmp_path, "none", max_steps=1, save_strategy="steps", save_steps=1)
    trainer.add_callback(FirstLog(trainer, BEFORE))
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "safety/asr_before" in entry]
    assert {name: entry[name] for name in BEFORE} == BEFORE
    assert entry["step"] == 0
    resumed = make_trainer(tmp_path, "none", max_steps=2)
    resumed.add_callback(FirstLog(resumed, BEFORE))
    resumed.train(resume_from_checkpoint=True)
    assert sum("safety/asr_before" in entry for entry in resumed.state.log_history) == 1
