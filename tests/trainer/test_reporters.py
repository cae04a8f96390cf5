"""What dashboards get, through transformers' own reporters; their libraries are stood in for by recorders."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch.utils
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

    def __init__(self, *_, log_dir=None, **__):
        self.seen, self.log_dir, self.open = {}, log_dir, True
        self.config, self.summary, self.run = {}, {}, SimpleNamespace(summary={}, _label=lambda **_: None)
        self.context_vars = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))

    def add_scalar(self, name, value, step):
        self.seen[name, step] = value

    def log(self, values):
        step = values.get("train/global_step")
        self.seen |= {(name, step): value for name, value in values.items()}

    def __getattr__(self, name):
        return lambda *_, **__: None


class Config(dict):
    def update(self, *values, **_):
        super().update(*values)


def tensorboard(monkeypatch) -> list[Recorder]:
    writers = []
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda **options: writers.append(Recorder(**options)) or writers[-1]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(torch.utils, "tensorboard", module, raising=False)
    monkeypatch.setattr(theirs, "is_tensorboard_available", lambda: True)
    return writers


def library(monkeypatch, name) -> list[Recorder]:
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
    return [recorder]


REPORTERS = {
    "tensorboard": tensorboard,
    "wandb": lambda patch: library(patch, "wandb"),
    "trackio": lambda patch: library(patch, "trackio"),
}


@pytest.mark.parametrize("reporter", REPORTERS)
def test_every_number_reaches_the_dashboard_with_its_step(tmp_path, monkeypatch, reporter):
    recorders = REPORTERS[reporter](monkeypatch)
    trainer = make_trainer(
        tmp_path, "der+agem", safety_weight="auto", report_to=reporter, evaluation=task_rows(4), run_name="run"
    )
    trainer.add_callback(
        SafetyEvalCallback(trainer, [f"bad {i}" for i in range(8)], judge=Half(), steps=1, max_new_tokens=3)
    )
    trainer.add_callback(FirstLog(trainer, BEFORE))
    trainer.train()
    trainer.log({"safety/asr_after": 0.5})
    seen = {key: value for one in recorders for key, value in one.seen.items()}
    for name, value in BEFORE.items():
        assert seen[f"train/{name}", 0] == value
    for step in (1, 2):
        names = {name for name, at in seen if at == step}
        assert names >= {
            *("train/loss", "train/task_loss", "train/safety_loss", "train/safety/der", "train/safety/agem"),
            *("train/safety/der_weight", "train/safety/agem_projected", "train/safety/agem_cosine"),
            *("eval/asr", "eval/asr_low", "eval/asr_high", "eval/asr_degenerate", "eval/asr_unjudged"),
        }
        assert seen["eval/asr_low", step] < seen["eval/asr", step] < seen["eval/asr_high", step]
    assert seen["train/safety/asr_after", 2] == 0.5
    if reporter == "tensorboard":  # all of it in one folder, that of the run
        assert {str(one.log_dir).startswith(str(tmp_path)) for one in recorders} == {True}


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
