"""The ways into other tools: the plugin and the scripts of the page, called as these tools call them."""

import re
from functools import partial
from pathlib import Path

import pytest
import yaml

import safe_sft
from tests.conftest import logged, make_config, safety_rows, task_rows
from tests.integrations import standins
from tests.repair.conftest import write_rows

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text()
BLOCKS = dict(re.findall(r"^## (\S+)\n.*?^```(?:python|yaml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
CONFIG = yaml.safe_load(BLOCKS["axolotl"])


@pytest.fixture
def plugin(monkeypatch):
    return standins.plugin(monkeypatch, CONFIG["plugins"][0])


def configuration(tmp_path, **own) -> standins.DictDefault:
    rows = write_rows(tmp_path / "safety.jsonl", safety_rows())
    given = {**CONFIG["safe_sft"], "safety_dataset": rows, **own}
    return standins.DictDefault(safe_sft=given, sample_packing=CONFIG["sample_packing"], sequence_len=256)


def test_axolotl_trains_with_the_terms_that_its_configuration_names(plugin, tmp_path):
    cfg = configuration(tmp_path, safety_weight=0.5, replay_ratio=0.5)
    read = standins.merged_input(plugin)(safe_sft=cfg.safe_sft)
    assert read.safe_sft == cfg.safe_sft
    trainer = standins.built(plugin, cfg, tmp_path)
    assert (trainer.args.safety_method, trainer.args.safety_weight, trainer.args.max_length) == ("der", 0.5, 256)
    assert trainer.args.sample_packing is False  # axolotl's own fields stay readable
    assert trainer.train_dataset["labels"] == standins.tokenised_rows(trainer.processing_class)["labels"]
    trainer.train()
    assert len(logged(trainer, "task_loss")) == len(logged(trainer, "safety_loss")) == 2
    assert logged(trainer, "safety_loss")[1] > 0
    assert trainer.teacher.kind == "online"


def test_what_axolotl_leaves_open_is_off(plugin, tmp_path):
    trainer = standins.built(plugin, configuration(tmp_path), tmp_path)
    assert (trainer.args.activation_offloading, trainer.args.gradient_checkpointing) == (False, False)


def test_axolotl_asks_for_a_card_with_the_names_of_its_data(plugin, tmp_path):
    trainer = standins.built(plugin, configuration(tmp_path), tmp_path)
    trainer.create_model_card(model_name="tuned", dataset_tags=["org/rows", "task.jsonl"])
    card = (tmp_path / "README.md").read_text()
    assert "org/rows" in card
    assert "der" in card


def test_without_the_mapping_axolotl_trains_itself(plugin):
    assert plugin.get_trainer_cls(standins.DictDefault()) is None
    assert standins.merged_input(plugin)().safe_sft is None


def test_axolotls_packing_is_refused(plugin, tmp_path):
    cfg = standins.DictDefault({**configuration(tmp_path), "sample_packing": True})
    with pytest.raises(ValueError, match="Set `sample_packing: false`"):
        plugin.get_trainer_cls(cfg)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"safety_metod": "er"}, "`safety_metod` is no field"),
        ({"safety_method": "err"}, "there is no method 'err'"),
        ({"lisa_task_steps": 4}, "has no effect"),
    ],
)
def test_what_the_mapping_cannot_hold_is_named(plugin, tmp_path, own, message):
    with pytest.raises(ValueError, match=message):
        standins.built(plugin, configuration(tmp_path, **own), tmp_path)


def run(block: str, **names) -> dict:
    exec(compile(block, "docs/integrations.md", "exec"), names)
    return names


def test_the_script_for_llama_factory_runs(monkeypatch, tmp_path):
    standins.llama_factory(monkeypatch, tmp_path / "out")
    few = partial(safe_sft.SafeSFTTrainer, safety_dataset=safety_rows())  # the built-in prompts take a while
    monkeypatch.setitem(vars(safe_sft), "SafeSFTTrainer", few)
    trainer = run(BLOCKS["LLaMA-Factory"])["trainer"]
    assert trainer.args.safety_method == "der"
    assert len(logged(trainer, "safety_loss")) == 2
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_the_script_for_unsloth_runs(monkeypatch, tmp_path):
    standins.unsloth(monkeypatch)
    few = partial(safe_sft.SafeSFTTrainer, safety_dataset=safety_rows())
    monkeypatch.setitem(vars(safe_sft), "SafeSFTTrainer", few)
    monkeypatch.setitem(
        vars(safe_sft), "SafeSFTConfig", lambda folder, max_length: make_config(tmp_path, max_length=max_length)
    )
    trainer = run(BLOCKS["Unsloth"], dataset=task_rows())["trainer"]
    assert len(logged(trainer, "safety_loss")) == 2
