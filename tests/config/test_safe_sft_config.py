"""Bad input is refused with value, reason and remedy, before anything is loaded."""

import pytest
from trl import TrlParser

from safe_sft import SafeSFTConfig
from safe_sft.methods import DER, ER, L2
from safe_sft.methods.registry import METHODS
from tests.conftest import make_config


@pytest.mark.parametrize(
    ("method", "weight", "expected"),
    [
        ("none", None, []),
        ("der", None, [(DER, DER.default_weight)]),
        ("DER ", 0.5, [(DER, 0.5)]),
        ("der+l2", "0.5+0.05", [(DER, 0.5), (L2, 0.05)]),
        ("der+l2", [0.5, 0.05], [(DER, 0.5), (L2, 0.05)]),
        ("der++", "1+2", [(DER, 1.0), (ER, 2.0)]),
        ("der+++l2", "1+2+3", [(DER, 1.0), (ER, 2.0), (L2, 3.0)]),
    ],
)
def test_terms(tmp_path, method, weight, expected):
    assert make_config(tmp_path, safety_method=method, safety_weight=weight).safety_terms == expected


def test_the_default_weight_is_in_the_unit_of_the_divergence(tmp_path):
    def weights(method, **fields):
        return [w for _, w in make_config(tmp_path, safety_method=method, **fields).safety_terms]

    assert weights("der", teacher_divergence="kl") == [3.0]
    assert weights("der+l2", teacher_divergence="relative_squared") == [300.0, 100.0]
    assert weights("der", teacher_divergence="relative_squared", safety_weight=7) == [7.0]
    assert weights("safegrad", teacher_divergence="relative_squared") == [1.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"safety_method": "ewcc"}, r"`safety_method='ewcc'` is unknown.*Choose from: .*der.*none"),
        ({"safety_method": False}, "write `safety_method: none`"),
        ({"safety_method": "der+der"}, "names a method twice"),
        ({"safety_method": "der+"}, "there is no method ''"),
        ({"safety_weight": "half"}, "is not a number"),
        ({"safety_weight": -1.0}, "must be finite and at least 0"),
        ({"safety_weight": float("nan")}, "must be finite"),
        ({"safety_weight": "0.5+0.1"}, "has 2 weights for the 1 terms"),
        ({"safety_method": "none", "safety_weight": 1.0}, "has 1 weights for the 0 terms"),
        ({"safety_weight": False}, "is not a number"),
        ({"safety_method": ""}, "`safety_method` is empty"),
        ({"safety_method": "ema", "ema_decay": None}, "`ema_decay=None` must be a number"),
        ({"safety_method": "ema", "ema_decay": 1}, "from 0 to 1"),
        ({"merge_weight": "0.3"}, "`merge_weight='0.3'` must be a number"),
        ({"replay_ratio": True}, "must be a number"),
        ({"teacher_divergence": "squared", "teacher_temperature": 2.0}, "no effect on the squared distance of `der`"),
        ({"teacher": "disk"}, "Choose from: cached, online"),
        ({"safety_method": "l2", "importance_space": "lora"}, "Choose from: adapter, weight"),
        ({"replay_ratio": 0}, "must be a number from 0.001 to 100"),
        ({"safety_method": "l2", "teacher": "online"}, "has no effect with `safety_method='l2'`.*reads it: .*der"),
        ({"safety_method": "none", "replay_ratio": 0.5}, "has no effect"),
        ({"per_device_train_batch_size": 0}, "`per_device_train_batch_size=0` must be a whole number of at least 1"),
        ({"per_device_eval_batch_size": -1}, "`per_device_eval_batch_size=-1` must be a whole number"),
        ({"gradient_accumulation_steps": 0}, "`gradient_accumulation_steps=0` must be a whole number"),
        ({"max_length": 0}, "`max_length=0` must be a whole number"),
        ({"max_steps": -2}, "`max_steps=-2` must be a whole number, or -1"),
        ({"learning_rate": float("nan")}, "`learning_rate=nan` must be a finite number of at least 0"),
        ({"learning_rate": float("inf")}, "`learning_rate=inf` must be a finite number"),
        ({"learning_rate": -1e-4}, "`learning_rate=-0.0001` must be a finite number"),
        ({"num_train_epochs": -1}, "`num_train_epochs=-1` must be a finite number"),
        ({"num_train_epochs": float("nan")}, "`num_train_epochs=nan` must be a finite number"),
        ({"replay_ratio": 99, "per_device_train_batch_size": 100}, "asks for 9900 safety rows.*most is 4096"),
        ({"per_device_train_batch_size": 1_000_000_000}, "asks for 250000000 safety rows.*Lower one"),
        ({"teacher_memory": -1}, "`teacher_memory=-1` must be a number from 0"),
        ({"safety_method": "er", "teacher_memory": 1.0}, "no effect with `safety_method='er'`.*reads it: .*der"),
        ({"teacher": "cached", "teacher_memory": 1.0}, "`teacher_memory=1.0` has no effect on a cached teacher"),
        ({"safety_weight": float("inf")}, "must be finite"),
        ({"output_dir": " "}, "`output_dir=' '` is empty"),
        ({"importance_space": "weight"}, "has no effect with `safety_method='der'`.*l2"),
    ],
)
def test_bad_values_are_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        make_config(fields.get("output_dir", tmp_path), **{k: v for k, v in fields.items() if k != "output_dir"})


def test_large_batches_are_for_methods_without_replay(tmp_path):
    fields = {"per_device_train_batch_size": 100_000, "num_train_epochs": 0.5, "max_length": None}
    assert make_config(tmp_path, safety_method="l2", **fields).per_device_train_batch_size == 100_000


@pytest.mark.parametrize("value", ["0.25", "0.25+0.5"])
def test_weights_from_yaml_and_the_command_line(tmp_path, value):
    method = "der+l2" if "+" in value else "der"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: {tmp_path}\nsafety_method: {method}\nsafety_weight: {value}\nuse_cpu: true\n")
    expected = [float(part) for part in value.split("+")]
    for args in (["--config", str(recipe)], ["--config", str(recipe), "--safety_weight", value]):
        (config,) = TrlParser(SafeSFTConfig).parse_args_and_config(args)
        assert [weight for _, weight in config.safety_terms] == expected


def test_every_method_declares_fields_that_exist(tmp_path):
    for method in METHODS.values():
        assert method.reads <= set(vars(make_config(tmp_path)))
