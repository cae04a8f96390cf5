"""Laws of recipes, over values that nobody would think of: a configuration, or an error that names the field."""

import datetime
from dataclasses import fields

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl import SFTConfig

from safe_sft import SafeSFTConfig
from safe_sft.config.recipes import read_recipe
from safe_sft.config.script_arguments import SafeScriptArguments

LAWS = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
#: What may start other programs, change this process for good, or is a package that is not installed.
LEFT_OUT = {"deepspeed", "fsdp", "parallelism_config", "enable_jit_checkpoint", "torch_compile", "tf32"}
FIELDS = sorted({f.name for f in fields(SafeSFTConfig) if f.init} - LEFT_OUT)
OWN = sorted({f.name for f in fields(SafeSFTConfig)} - {f.name for f in fields(SFTConfig)})
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["no", "off", "none", "0.5", "1e-4", "", " ", "{", "der+l2", "steps", "auto"]),
    st.dates(min_value=datetime.date(1, 1, 1)),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def from_yaml(value):
    """The value as a recipe would give it."""
    return yaml.safe_load(yaml.safe_dump({"x": value}))["x"]


RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "env": st.dictionaries(st.sampled_from(["A", "B", "C"]), st.text("xyz", max_size=2), max_size=3),
        **{name: PLAIN.filter(lambda value: value == value) for name in ("a", "b", "learning_rate")},
    },
)


@LAWS
@given(low=RECIPES, middle=RECIPES, high=RECIPES)
def test_extending_is_associative_and_the_last_word_wins(tmp_path, low, middle, high):
    def read(top, **recipes):
        for name, content in recipes.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return read_recipe(tmp_path / f"{top}.yaml")

    parts = {"low": low, "middle": middle, "high": high}
    left = read(
        "left", **parts, two={"extends": ["low.yaml", "middle.yaml"]}, left={"extends": ["two.yaml", "high.yaml"]}
    )
    right = read(
        "right", **parts, two={"extends": ["middle.yaml", "high.yaml"]}, right={"extends": ["low.yaml", "two.yaml"]}
    )
    chain = read("high", low=low, middle={"extends": "low.yaml", **middle}, high={"extends": "middle.yaml", **high})
    assert left == right == chain
    env = {**low.get("env", {}), **middle.get("env", {}), **high.get("env", {})}
    expected = {**low, **middle, **high, **({"env": env} if env or any("env" in p for p in parts.values()) else {})}
    assert left == expected


@LAWS
@given(name=st.sampled_from(sorted(f.name for f in fields(SafeScriptArguments))), value=VALUES)
def test_any_value_of_any_field_of_the_data_makes_arguments_or_names_the_field(name, value):
    try:
        SafeScriptArguments(**{name: from_yaml(value)})
    except ValueError as error:
        assert name in str(error)  # noqa: PT017 (most values are good)


@pytest.mark.parametrize("names", [FIELDS, OWN], ids=["all", "own"])
@LAWS
@given(data=st.data())
def test_any_value_of_any_field_makes_a_config_or_names_the_field(tmp_path, names, data):
    name, value = data.draw(st.sampled_from(names)), from_yaml(data.draw(VALUES))
    given_fields = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none", name: value}
    try:
        SafeSFTConfig(**given_fields)
    except ValueError as error:
        assert name in str(error) or (name == "use_cpu" and "bf16" in str(error))  # noqa: PT017
