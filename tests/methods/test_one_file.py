"""A method is one file: help, plan, card and table know it, and no other file is touched."""

import sys
from importlib import import_module

import pytest
from huggingface_hub import ModelCard
from trl import ModelConfig

from safe_sft.cli.recipe_arguments import make_parser, parse
from safe_sft.methods import METHODS, SafetyMethod, register
from safe_sft.methods.listing import methods_table
from safe_sft.planning import Rows, make_plan
from safe_sft.planning.write_recipe import write_recipe
from tests.conftest import make_config, make_model, make_trainer

TOY = '''
"""Toy: keep the states of the safety rows small."""

from safe_sft.methods import Replay, register
from safe_sft.methods.kept import Kept


@register
class Toy(Replay):
    """Squared states of replayed safety rows, 100 % toy."""

    name = "toy"
    default_weight = 0.25
    bibtex = "@misc{toy2026, url = {https://example.org/toy}}"
    reads = Replay.reads | {"ema_decay"}

    @classmethod
    def keeps(cls, outline):
        return [Kept("notes of the toy", 1000)]

    def token_losses(self, replay):
        return replay.hidden.square().sum(-1)
'''


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """The file of the method, imported."""
    (tmp_path / "toy_method.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_method", raising=False)
    import_module("toy_method")
    yield
    METHODS.pop("toy")


def test_the_help_names_it(tmp_path):
    text = " ".join(make_parser("train").format_help().split())
    assert "toy: Squared states of replayed safety rows, 100 % toy" in text
    assert "toy: 0.25" in text
    assert "Read by: ema, toy." in text
    with pytest.raises(ValueError, match=r"Choose from: .*toy"):
        make_config(tmp_path, safety_method="nothing")


def test_a_recipe_may_name_it(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: {tmp_path}\nsafety_method: toy+l2\nema_decay: 0.5\nuse_cpu: true\n")
    _, args, _, _ = parse(["--config", str(recipe)])
    assert [(method.name, weight) for method, weight in args.safety_terms] == [("toy", 0.25), ("l2", 100.0)]
    assert "toy" in write_recipe("Qwen/Qwen3-0.6B", "gsm8k", "24GB", "der")


def test_the_plan_counts_what_it_needs(tmp_path):
    make_model().config.save_pretrained(tmp_path)
    model, rows = ModelConfig(model_name_or_path=str(tmp_path)), Rows(16, 20, 20, 10)
    plan = make_plan(make_config(tmp_path, safety_method="toy"), model, rows, rows, utilization=0.5)
    assert plan.method == "toy"
    assert plan.schedule.replay_rows == 1
    assert ("notes of the toy", 1000) in [(item.name, item.size) for item in plan.items]


def test_the_card_cites_it(tmp_path):
    trainer = make_trainer(tmp_path, "toy", max_steps=1)
    trainer.train()
    trainer.create_model_card()
    text = ModelCard.load(tmp_path / "README.md").text
    assert "| `toy` | weight 0.25 |" in text
    assert "https://example.org/toy" in text


def test_the_table_shows_it():
    row = "| `toy` | Squared states of replayed safety rows, 100 % toy | safety prompts | 0.25 |"
    assert row in methods_table().splitlines()


@pytest.mark.parametrize("name", ["toy", "none"])
def test_a_name_is_given_once(name):
    with pytest.raises(ValueError, match=f"`name='{name}'` of Other is taken"):
        register(type("Other", (SafetyMethod,), {"name": name}))
