"""Recipes extend each other, give way to the command line, and can be written down whole."""

import pytest
import yaml

from safe_sft.config.recipes import read_recipe, resolved_recipe, split_recipe


def write(folder, **recipes):
    """Write recipes by name; returns the path of the first."""
    for name, content in recipes.items():
        (folder / f"{name}.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return folder / f"{next(iter(recipes))}.yaml"


def test_a_recipe_that_extends_nothing_is_its_content(tmp_path):
    content = {"model_name_or_path": "m", "learning_rate": 1e-4, "datasets": [{"path": "d"}]}
    assert read_recipe(write(tmp_path, only=content)) == content


def test_what_extends_wins_over_what_is_extended(tmp_path):
    path = write(
        tmp_path,
        top={"extends": "middle.yaml", "c": "top"},
        middle={"extends": "bottom.yaml", "b": "middle", "c": "middle"},
        bottom={"a": "bottom", "b": "bottom", "c": "bottom"},
    )
    assert read_recipe(path) == {"a": "bottom", "b": "middle", "c": "top"}


def test_of_a_list_the_later_wins(tmp_path):
    path = write(tmp_path, top={"extends": ["one.yaml", "two.yaml"]}, one={"a": 1, "b": 1}, two={"b": 2})
    assert read_recipe(path) == {"a": 1, "b": 2}


def test_paths_are_relative_to_the_file_that_extends(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    write(tmp_path, shared={"a": 1})
    path = write(tmp_path / "model", recipe={"extends": "../shared.yaml"})
    monkeypatch.chdir(tmp_path / "model")
    assert read_recipe("recipe.yaml") == read_recipe(path) == {"a": 1}


def test_a_value_is_replaced_whole_and_only_env_is_joined(tmp_path):
    path = write(
        tmp_path,
        top={"extends": "low.yaml", "env": {"A": "1"}, "model_init_kwargs": {"x": 1}},
        low={"env": {"A": "0", "B": "2"}, "model_init_kwargs": {"y": 2}},
    )
    assert read_recipe(path) == {"env": {"A": "1", "B": "2"}, "model_init_kwargs": {"x": 1}}


def test_two_may_extend_the_same(tmp_path):
    path = write(
        tmp_path, top={"extends": ["l.yaml", "r.yaml"]}, l={"extends": "b.yaml"}, r={"extends": "b.yaml"}, b={"a": 1}
    )
    assert read_recipe(path) == {"a": 1}


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ({"a": {"extends": "a.yaml"}}, r"circle: .*a\.yaml → .*a\.yaml"),
        ({"a": {"extends": "b.yaml"}, "b": {"extends": "a.yaml"}}, r"circle: .*a\.yaml → .*b\.yaml → .*a\.yaml"),
        ({"a": {"extends": 3}}, "`extends: 3` in '.*a.yaml' is no recipe"),
        ({"a": {"extends": [["b.yaml"]]}}, "is no recipe"),
        ({"a": {"extends": None}}, "is no recipe"),
        ({"a": ["x"]}, "a.yaml' is not a mapping"),
        ({"a": ""}, "a.yaml' is not a mapping"),
        ({"a": {"extends": "b.yaml"}, "b": "words"}, "b.yaml', which '.*a.yaml' extends, is not a mapping"),
        ({"a": "x: [1"}, "a.yaml' cannot be read: while parsing"),
        ({"a": "lr: 1\nb:\n  c: 2\nlr: 3"}, "a.yaml' cannot be read: `lr` is written 2 times; keep one"),
        ({"a": "b:\n  c: 2\n  c: 2"}, "`c` is written 2 times"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, recipes, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(write(tmp_path, **recipes))
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_named_with_what_extends_it(tmp_path):
    path = write(tmp_path, a={"extends": "none/b.yaml"})
    with pytest.raises(FileNotFoundError, match=r"none/b.yaml', which '.*a.yaml' extends, does not exist"):
        read_recipe(path)
    with pytest.raises(FileNotFoundError, match=r"The recipe 'nowhere.yaml' does not exist\. Looked in /"):
        read_recipe("nowhere.yaml")


def test_split_recipe():
    assert split_recipe(["--a", "1", "--config", "r.yaml", "--b"]) == ("r.yaml", ["--a", "1", "--b"])
    assert split_recipe(["--config=r.yaml"]) == ("r.yaml", [])
    assert split_recipe(["--config_name", "x"]) == (None, ["--config_name", "x"])
    for argv in (["--config"], ["--config", "--seed"], ["--config="]):
        with pytest.raises(ValueError, match="has no path"):
            split_recipe(argv)
    with pytest.raises(ValueError, match="is given 2 times"):
        split_recipe(["--config", "a", "--config", "b"])


def test_the_command_line_is_written_into_the_recipe(tmp_path):
    path = write(tmp_path, top={"extends": "low.yaml", "seed": 1}, low={"learning_rate": 0.1, "seed": 0})
    line = (
        "--learning-rate 1e-4 --safety_method=der+l2 --safety_weight 0.5+0.05 --eval_strategy no --use_cpu "
        "--no_safety_eval --max_steps -1 --lora_target_modules q_proj v_proj --ema_evaluate false --max_length none"
    )
    assert resolved_recipe(["--config", str(path), *line.split()]) == {
        "seed": 1,
        "learning_rate": 1e-4,
        "safety_method": "der+l2",
        "safety_weight": "0.5+0.05",
        "eval_strategy": "no",
        "use_cpu": True,
        "safety_eval": False,
        "max_steps": -1,
        "lora_target_modules": ["q_proj", "v_proj"],
        "ema_evaluate": False,
        "max_length": "none",
    }


def test_secrets_are_left_out(tmp_path):
    path = write(
        tmp_path,
        a={
            "hub_token": "hf_1",
            "eos_token": "</s>",
            "env": {"HF_TOKEN": "hf_2", "WANDB_API_KEY": "3", "OMP_NUM_THREADS": "1"},
            "model_init_kwargs": {"token": "hf_4", "revision": "main"},
        },
    )
    argv = ["--config", str(path), "--push_to_hub_token", "hf_5", "--dataset_kwargs", '{"token": "hf_6"}']
    assert resolved_recipe(argv) == {
        "eos_token": "</s>",
        "model_init_kwargs": {"revision": "main"},
        "dataset_kwargs": {},
    }


def test_yaml_merge_keys_still_merge(tmp_path):
    assert read_recipe(write(tmp_path, a="x: &x\n  b: 1\n  c: 2\ny:\n  <<: *x\n  b: 3")) == {
        "x": {"b": 1, "c": 2},
        "y": {"b": 3, "c": 2},
    }


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "aliases stand for more than 100000 values; write out"),
        ("a: &a [*a]\n", "an alias stands inside what it stands for"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_a_recipe_that_becomes_huge_is_refused_at_once(tmp_path, content, message):
    path = write(tmp_path, bomb=content)
    with pytest.raises(ValueError, match=rf"The recipe '.*bomb.yaml' cannot be read: .*{message}"):
        read_recipe(path)


def test_aliases_may_be_used(tmp_path):
    assert read_recipe(write(tmp_path, top="a: &a [1, 2]\nb: *a\n")) == {"a": [1, 2], "b": [1, 2]}
