"""A stage that is killed while it trains goes on from its newest checkpoint, to the same weights and numbers."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from safe_sft.experiments.engine import Engine, State, _command
from safe_sft.experiments.grid import read_experiment
from safe_sft.experiments.runs import distinct_runs
from safe_sft.trainer.checkpoints import newest_checkpoint
from tests.conftest import assert_same, make_model, make_tokenizer, safety_rows, task_rows
from tests.experiments.helpers import write

STEPS, SAVED = 80, 10


@pytest.fixture
def runs(tmp_path):
    """Two stages of DER on the tiny model, with checkpoints."""
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    for name in ("one", "two"):
        task_rows(40).map(lambda row, n=name: {"prompt": f"{n} {row['prompt']}"}).to_json(tmp_path / f"{name}.jsonl")
    (tmp_path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"evil {i}"}) for i in range(3)))
    settings = {
        **{"model_name_or_path": str(tmp_path / "model"), "dataset_name": None, "use_peft": True, "lora_dropout": 0.1},
        **{"lora_target_modules": "all-linear", "safety_dataset_name": str(tmp_path / "safety.jsonl")},
        **{"safety_eval_prompts": str(tmp_path / "prompts.jsonl"), "safety_eval_max_new_tokens": 4},
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False},
        **{"per_device_train_batch_size": 4, "max_steps": STEPS, "save_strategy": "steps", "save_steps": SAVED},
    }
    stages = {name: {"dataset_name": str(tmp_path / f"{name}.jsonl")} for name in ("one", "two")}
    path = write(tmp_path, **settings, stages=stages, variants={"der": {"safety_method": "der"}})
    return distinct_runs(read_experiment(path).cells)


def kill_in_training(folder: Path, runs) -> None:
    """Do the runs, and kill the last one once it has saved a checkpoint."""
    does = Engine(folder, runs)
    last = does.all[-1]

    def show(_) -> None:
        if last.state is State.RUNNING and newest_checkpoint(str(last.folder.model), warn=False):
            does._jobs[0].process.kill()

    does._show = show
    assert does.go()[-1].state is State.STOPPED
    step = int(Path(newest_checkpoint(str(last.folder.model), warn=False)).name.partition("-")[2])
    assert 0 < step < STEPS
    assert not (last.folder.model / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_a_killed_stage_ends_bit_for_bit_as_one_that_was_not(tmp_path, runs, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = Engine(tmp_path / "whole", runs).go()
    assert [one.state for one in whole] == [State.DONE, State.DONE]
    shutil.copytree(whole[0].folder.path, tmp_path / "killed" / "runs" / runs[0].digest)
    kill_in_training(tmp_path / "killed", runs)
    commands = []

    def command(progress, engine):
        commands.append(_command(progress, engine))
        return commands[-1]

    resumed = Engine(tmp_path / "killed", runs, command=command).go()
    assert [one.state for one in resumed] == [State.DONE, State.DONE]
    assert [words[-2:] for words in commands] == [["--resume_from_checkpoint", "true"]]
    weights = [load_file(one[-1].folder.model / "adapter_model.safetensors") for one in (whole, resumed)]
    assert_same(*weights)
    mine, theirs = (one[-1].folder.done() for one in (resumed, whole))
    assert mine | {"seconds": 0} == theirs | {"seconds": 0}
    assert not list(resumed[-1].folder.model.glob("checkpoint-*"))
