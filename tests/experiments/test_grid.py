"""A grid is the product of its axes and variants, less what is excluded; what two cells share is one run."""

import json
from pathlib import Path

import pytest

from safe_sft.experiments.grid import read_experiment
from safe_sft.experiments.runs import distinct_runs, run_digest, share_of
from tests.experiments.helpers import make, write

VARIANTS = {"none": {"safety_method": "none"}, "der": {"safety_method": "der", "safety_weight": 1}}
MERGE = {"after": "none", "merge_after_training": "slerp", "merge_weight": 0.6}


def test_the_product_of_axes_and_variants(tmp_path):
    experiment, runs = make(
        tmp_path,
        grid={"seed": [0, 1], "task": {"a": {"dataset_name": "a"}, "b": {"dataset_name": "b", "max_steps": 5}}},
        variants=VARIANTS,
    )
    assert experiment.axes == {"seed": ("0", "1"), "task": ("a", "b")}
    assert [cell.name for cell in experiment.cells[:3]] == [
        "none, seed=0, task=a",
        "none, seed=0, task=b",
        "none, seed=1, task=a",
    ]
    assert len(runs) == len(experiment.cells) == 8
    last = experiment.cells[-1].recipe
    assert last == {
        **{"model_name_or_path": "nobody/model", "dataset_name": "b", "seed": 1, "max_steps": 5},
        **VARIANTS["der"],
    }


def test_a_list_of_methods_are_the_variants(tmp_path):
    experiment, _ = make(tmp_path, grid={"safety_method": ["none", "er"], "seed": [0]})
    assert experiment.variants == ("none", "er")
    assert experiment.axes == {"seed": ("0",)}
    assert [cell.recipe["safety_method"] for cell in experiment.cells] == ["none", "er"]


def test_the_file_extends_recipes(tmp_path):
    (tmp_path / "base.yaml").write_text("learning_rate: 0.1\nvariants:\n  none: {safety_method: none}\n")
    experiment, _ = make(tmp_path, extends="base.yaml", output_dir="there")
    assert experiment.cells[0].recipe["learning_rate"] == 0.1
    assert (experiment.name, experiment.output) == ("grid", "there")


def test_excluded_combinations_are_left_out(tmp_path):
    exclude = [{"variant": "der", "seed": 1}, {"poison_ratio": [0.5, 0.9], "variant": "none"}]
    grid = {"seed": [0, 1], "poison_ratio": [0, 0.5, 0.9]}
    experiment, _ = make(tmp_path, grid=grid, variants=VARIANTS, exclude=exclude)
    names = [cell.name for cell in experiment.cells]
    assert names == ["none, seed=0, poison_ratio=0", "none, seed=1, poison_ratio=0"] + [
        f"der, seed=0, poison_ratio={ratio}" for ratio in ("0", "0.5", "0.9")
    ]


def test_without_poison_its_fields_are_left_out(tmp_path):
    experiment, _ = make(tmp_path, poison_kind="harmful", grid={"poison_ratio": [0, 0.1]}, variants={"none": {}})
    assert ["poison_kind" in cell.recipe for cell in experiment.cells] == [False, True]


def test_merges_share_the_run_that_they_start_from(tmp_path):
    linear = {**MERGE, "merge_after_training": "linear"}
    experiment, runs = make(tmp_path, grid={"seed": [0, 1]}, variants={**VARIANTS, "slerp": MERGE, "linear": linear})
    trained = [run for run in runs if run.after is None]
    merged = [run for run in runs if run.after is not None]
    assert (len(experiment.cells), len(trained), len(merged)) == (8, 4, 4)
    for run in merged:
        assert run.after.cells[0].variant == "none"
        assert run.after.recipe["seed"] == run.recipe["seed"]
        assert {
            **run.after.recipe,
            "merge_after_training": run.recipe["merge_after_training"],
            "merge_weight": 0.6,
        } == (run.recipe)
    assert runs.index(merged[0]) > runs.index(trained[-1])


def test_a_merge_brings_its_run_along_where_that_is_excluded(tmp_path):
    _, runs = make(tmp_path, variants={**VARIANTS, "slerp": MERGE}, exclude=[{"variant": "none"}])
    assert [(run.after is None, [cell.variant for cell in run.cells]) for run in runs] == [
        (True, ["der"]),
        (True, []),
        (False, ["slerp"]),
    ]


def test_equal_recipes_are_one_run(tmp_path):
    experiment, runs = make(tmp_path, learning_rate=1, variants={"a": {}, "b": {"learning_rate": 1.0}})
    assert len(experiment.cells) == 2
    assert [[cell.variant for cell in run.cells] for run in runs] == [["a", "b"]]


def test_the_digest_follows_settings_version_and_data(tmp_path, monkeypatch):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a"}\n')
    recipe = {"dataset_name": str(data), "safety_dataset_name": f"beavertails:{data}", "seed": 1}
    first = run_digest(recipe)
    assert run_digest({**recipe, "report_to": "wandb"}) == first
    assert run_digest({**recipe, "seed": 2}) != first
    assert run_digest(recipe, after="abc") != first
    data.write_text('{"prompt": "b"}\n')
    changed = run_digest(recipe)
    assert changed != first
    monkeypatch.setattr("safe_sft.experiments.runs.__version__", "99")
    assert run_digest(recipe) not in (first, changed)


def test_the_digest_of_a_folder_is_that_of_its_files(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    first = run_digest({"model_name_or_path": str(model)})
    (model / "_teacher").mkdir()
    (model / "_teacher" / "part").write_text("x")
    assert run_digest({"model_name_or_path": str(model)}) == first
    base = run_digest({"merge_base": str(model)})
    (model / "config.json").write_text('{"a": 1}')
    assert run_digest({"model_name_or_path": str(model)}) != first
    assert run_digest({"merge_base": str(model)}) != base


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_shares_are_a_partition_that_keeps_merges_with_their_run(tmp_path, count):
    _, runs = make(tmp_path, grid={"seed": [0, 1, 2]}, variants={**VARIANTS, "slerp": MERGE})
    shares = [share_of(runs, index, count) for index in range(count)]
    assert sorted(run.digest for share in shares for run in share) == sorted(run.digest for run in runs)
    for share in shares:
        assert all(run.after is None or run.after in share for run in share)
    trained = [sum(run.after is None for run in share) for share in shares]
    assert max(trained) - min(trained) <= 1


WRONG = [
    ({}, "`variants: null`", "der: {safety_method: der}"),
    ({"variants": {}}, "`variants: {}`", "Write one such as"),
    ({"variants": ["der"]}, '`variants: ["der"]`', "Write one such as"),
    ({"variants": {"der": "der"}}, '`der: "der"`', "Write `der: {field: value}`"),
    ({"grid": [1]}, "`grid: [1]`", "Write one `field: [value, value]`"),
    ({"grid": {"seed": 0}}, "`seed: 0`", "Write `seed: [value, value]`"),
    ({"grid": {"seed": []}}, "`seed: []`", "Write `seed: [value, value]`"),
    ({"grid": {"seed": [0, 0]}}, "`seed: [0, 0]`", "Keep one"),
    ({"grid": {"seed": [{"seed": 1}]}}, "`seed: [{", "named points"),
    ({"grid": {"task": {"a": "sst2"}}}, "`task: {", "Write one `name: {field: value}`"),
    ({"grid": {"variant": ["a"]}}, "the axis `variant`", "Write `variants:`"),
    ({"grid": {"learning_rate": [1]}, "variants": {"a": {"learning_rate": 2}}}, "`learning_rate`", "Remove"),
    ({"grid": {"x": {"a": {"output_dir": "b"}}}}, "`output_dir: b`", "Write it once"),
    ({"variants": {"a": {"push_to_hub": True}}}, "`push_to_hub: True`", "safe-sft push"),
    ({"safety_eval": False}, "`safety_eval: False`", "Every run is measured"),
    ({"variants": {"m": {**MERGE, "after": "nothing"}}}, "`after: nothing`", "Choose from"),
    ({"variants": {"none": {}, "m": {**MERGE, "seed": 1}}}, "`seed`", "Move `seed` to `none`"),
    ({"variants": {"none": {}, "m": {"after": "none"}}}, "`merge_after_training: None`", "linear, slerp"),
    ({"exclude": {"variant": "a"}}, "`exclude: {", "Write one such as"),
    ({"exclude": [{"variant": "b"}]}, '`variant: "b"`', "Choose from: a"),
    ({"exclude": [{"seed": 1}]}, "`seed: 1`", "Choose from: variant"),
    ({"exclude": [{"variant": "a"}]}, "leaves no run", "Remove a line"),
    ({"grid": {name: list(range(30)) for name in ("seed", "max_steps", "lora_r")}}, "27000 runs", "at most 10000"),
]


@pytest.mark.parametrize(("content", "names", "remedy"), WRONG, ids=lambda value: json.dumps(value)[:60])
def test_a_wrong_grid_is_named(tmp_path, content, names, remedy):
    content = content if "variants" in content or not content else {"variants": {"a": {}}, **content}
    with pytest.raises(ValueError, match="grid") as raised:
        read_experiment(write(tmp_path, **content))
    assert names in str(raised.value)
    assert remedy in str(raised.value)


def test_missing_data_is_an_error_before_anything_runs(tmp_path):
    experiment = read_experiment(write(tmp_path, variants={"none": {}}, dataset_name="missing.jsonl"))
    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        distinct_runs(experiment.cells)
    experiment = read_experiment(write(tmp_path, variants={"none": {}}, task_path=str(Path("nowhere"))))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        distinct_runs(experiment.cells)
