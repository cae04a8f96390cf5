"""Stages are trained in order, each once, from what the stage before has left; a failure blocks those after it."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from pyarrow import parquet

from safe_sft.experiments.compare import columns
from safe_sft.experiments.engine import State
from safe_sft.experiments.grid import read_experiment
from safe_sft.experiments.output import write_results
from safe_sft.experiments.refusals import require_possible
from safe_sft.experiments.results import read_results, rows
from safe_sft.experiments.runs import distinct_runs, share_of
from safe_sft.experiments.shared import shared_work
from safe_sft.experiments.stage_recipe import stage_recipe
from safe_sft.experiments.table import tables
from tests.experiments.helpers import BASE, engine, make, starts, write

STAGES = {
    "a": {"dataset_name": "nobody/a", "task_size": 100},
    "b": {"dataset_name": "nobody/b"},
    "c": {"task": "sst2"},
}
VARIANTS = {
    "none": {"safety_method": "none"},
    "der": {"safety_method": "der"},
    "slerp": {"after": "none", "merge_after_training": "slerp"},
}
ADAPTER = {"use_peft": True}


def staged(folder, **content):
    return make(folder, **{"stages": STAGES, "variants": VARIANTS, **ADAPTER, **content})


def of_stage(runs, variant, number):
    (run,) = [
        run
        for run in runs
        for cell in run.cells
        if cell.variant == variant and cell.point["stage"].startswith(f"{number} ")
    ]
    return run


def test_names_of_points_are_stages_and_no_axis_of_the_grid(tmp_path):
    grid = {"task": {"a": {"task": "gsm8k"}, "b": {"task": "sst2"}}, "seed": [0, 1]}
    experiment, runs = make(tmp_path, grid=grid, stages=["b", "a", "b"], variants={"none": {}})
    assert experiment.axes == {"seed": ("0", "1"), "stage": ("1 b", "2 a", "3 b")}
    assert [cell.name for cell in experiment.cells[:3]] == [f"none, seed=0, stage={s}" for s in ("1 b", "2 a", "3 b")]
    assert [cell.recipe["task"] for cell in experiment.cells[:3]] == ["sst2", "gsm8k", "sst2"]
    assert len(runs) == 6


def test_names_of_tasks_and_mappings_are_stages(tmp_path):
    tasks = read_experiment(write(tmp_path, stages=["gsm8k", "code"], variants={"none": {}}))
    assert [cell.recipe["task"] for cell in tasks.cells] == ["gsm8k", "code"]
    own = read_experiment(write(tmp_path, stages=STAGES, variants={"none": {}}))
    assert own.axes["stage"] == ("1 a", "2 b", "3 c")
    assert own.cells[1].recipe == {**BASE, "dataset_name": "nobody/b"}


def test_each_stage_starts_from_the_one_before_and_a_merge_from_its_own(tmp_path):
    _, runs = staged(tmp_path)
    for variant in ("none", "der"):
        first, second, third = (of_stage(runs, variant, number) for number in (1, 2, 3))
        assert (first.start, second.start, third.start) == (None, first, second)
        assert third.stages == [first, second, third]
    merge = of_stage(runs, "slerp", 3)
    assert (merge.after, merge.start) == (of_stage(runs, "none", 3), of_stage(runs, "none", 2))
    assert len(runs) == 9
    seen: list = []
    for run in runs:
        assert run.parent is None or run.parent in seen
        seen.append(run)


def test_the_digest_of_a_stage_has_those_before_in_it(tmp_path):
    def digests(**content):
        _, runs = staged(tmp_path, variants={"none": {}}, **content)
        return [of_stage(runs, "none", number).digest for number in (1, 2, 3)]

    known = digests()
    changed = digests(stages={**STAGES, "b": {"dataset_name": "nobody/b", "max_steps": 3}})
    assert [one == other for one, other in zip(known, changed, strict=True)] == [True, False, False]
    by_last = digests(anchor="last")
    assert [one == other for one, other in zip(known, by_last, strict=True)] == [True, False, False]


def test_plain_training_has_no_anchor(tmp_path):
    experiment, runs = staged(
        tmp_path, grid={"anchor": ["first", "last"]}, variants={k: VARIANTS[k] for k in ("none", "der")}
    )
    assert len(experiment.cells) == 12
    assert sorted(len(run.cells) for run in runs if run.cells[0].variant == "none") == [2, 2, 2]
    assert sorted(len(run.cells) for run in runs if run.cells[0].variant == "der") == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("use_peft", "anchor", "fields"),
    [
        (True, "first", {"start_from": "before"}),
        (True, "last", {"adapter_name_or_path": "before"}),
        (False, "first", {"start_from": "before"}),
        (False, "last", {"model_name_or_path": "before"}),
    ],
)
def test_the_recipe_of_a_stage_says_where_it_starts_and_what_it_measures(tmp_path, use_peft, anchor, fields):
    _, runs = staged(tmp_path, use_peft=use_peft, anchor=anchor, seed=3)
    third = of_stage(runs, "der", 3)
    assert stage_recipe(of_stage(runs, "der", 1), None) == {
        **BASE,
        **STAGES["a"],
        "use_peft": use_peft,
        "seed": 3,
        **VARIANTS["der"],
    }
    found = stage_recipe(third, Path("before"))
    assert found.pop("earlier_tasks") == [
        {"name": "stage 1", "task_size": 100, "dataset_name": "nobody/a", "seed": 3},
        {"name": "stage 2", "dataset_name": "nobody/b", "seed": 3},
    ]
    assert found == {**third.recipe, **fields}
    merged = stage_recipe(of_stage(runs, "slerp", 3), Path("before"))
    assert "start_from" not in merged  # `none` is merged with the first model
    assert merged.keys() - {"earlier_tasks"} == of_stage(runs, "slerp", 3).recipe.keys() | (
        {"adapter_name_or_path"} if anchor == "last" and use_peft else set()
    )


def test_importance_is_carried_on_where_the_last_model_is_protected(tmp_path):
    variants = {"ewc": {"safety_method": "ewc", "importance_decay": 0.9}}
    for anchor, is_carried in (("first", False), ("last", True)):
        _, runs = staged(tmp_path, variants=variants, anchor=anchor)
        assert "importance_decay" not in stage_recipe(of_stage(runs, "ewc", 1), None)
        second = stage_recipe(of_stage(runs, "ewc", 2), Path("before"))
        assert second.get("importance_previous") == (str(Path("before/_importance")) if is_carried else None)
        assert ("importance_decay" in second) == is_carried
        # A trained adapter would be anchored in another space than the fresh one of the first stage.
        assert second.get("importance_space") == ("weight" if is_carried else None)


def test_stages_are_done_once_and_in_order(tmp_path):
    _, runs = staged(tmp_path, grid={"seed": [0, 1]})
    ended = engine(tmp_path, runs, jobs=3).go()
    assert {one.state for one in ended} == {State.DONE}
    assert [starts(one) for one in ended] == [1] * 18
    recipe = yaml.safe_load((ended[-1].folder.path / "recipe.yaml").read_text())
    assert [entry["name"] for entry in recipe["earlier_tasks"]] == ["stage 1", "stage 2"]
    by_name = {one.run.name: one for one in ended}
    second = by_name["der, seed=0, stage=2 b"]
    recipe = yaml.safe_load((second.folder.path / "recipe.yaml").read_text())
    assert recipe["start_from"] == str(by_name["der, seed=0, stage=1 a"].folder.model)
    again = engine(tmp_path, runs).go()
    assert [starts(one) for one in again] == [1] * 18
    assert [starts(one) for one in engine(tmp_path, runs, mode="force").go()] == [2] * 18


def test_a_failed_stage_blocks_those_after_it(tmp_path):
    stages = {**STAGES, "b": {"dataset_name": "nobody/b", "run_name": "fail", "learning_rate": 9}}
    experiment, runs = staged(tmp_path, stages=stages, variants={k: VARIANTS[k] for k in ("none", "slerp")})
    by_name = {one.run.name: one for one in engine(tmp_path, runs).go()}
    assert {name: one.state.value for name, one in by_name.items()} == {
        "none, stage=1 a": "done",
        "none, stage=2 b": "failed",
        "none, stage=3 c": "blocked",
        "slerp, stage=1 a": "done",
        "slerp, stage=2 b": "blocked",
        "slerp, stage=3 c": "blocked",
    }
    assert by_name["none, stage=2 b"].error == "`learning_rate=9` is too large. Lower it."
    assert by_name["none, stage=3 c"].error == "none, stage=2 b, which it starts from, has failed."
    assert starts(by_name["none, stage=3 c"]) == 0
    write_results(experiment, runs, tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        found = {
            (row["variant"], row["stage"]): row["state"] for row in csv.DictReader(file) if row["variant"] != "aligned"
        }
    assert found["none", "2 b"] == "failed"
    assert found["none", "3 c"] == found["slerp", "2 b"] == found["slerp", "3 c"] == "blocked"
    page = (tmp_path / "report.html").read_text()
    assert "none, stage=3 c: none, stage=2 b, which it starts from, has failed." in page


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_share_keeps_a_sequence_together(tmp_path, count):
    _, runs = staged(tmp_path, grid={"seed": [0, 1, 2]})
    shares = [share_of(runs, index, count) for index in range(count)]
    assert sorted(run.digest for share in shares for run in share) == sorted(run.digest for run in runs)
    for share in shares:
        assert all(run.parent is None or run.parent in share for run in share)


def test_results_have_the_tasks_of_earlier_stages(tmp_path):
    experiment, runs = staged(tmp_path)
    engine(tmp_path, runs).go()
    made = write_results(experiment, runs, tmp_path)
    assert made == tables(columns(experiment, read_results(experiment, runs, tmp_path)))
    (table,) = made
    assert table.groups == ("stage 1 a", "stage 2 b", "stage 3 c")
    left = ("1 a: task loss ↓", "2 b: task loss ↓")
    assert [words[2:] for words in table.headings] == [(), left[:1], left]
    assert [cell.text for cell in table.rows["der"][2]][2:] == ["0.700", "0.700"]
    flat = rows(experiment, read_results(experiment, runs, tmp_path))
    assert parquet.read_table(tmp_path / "results.parquet").to_pylist() == flat
    of_der = {row["stage"]: row for row in flat if row["variant"] == "der"}
    assert [of_der[stage]["loss_stage_1"] for stage in ("1 a", "2 b", "3 c")] == [None, 0.7, 0.7]
    assert (of_der["3 c"]["loss_stage_2_n"], of_der["3 c"]["loss"]) == (8, 0.5)
    for name, text in (("table.md", "stage 3 c: 2 b: task loss ↓"), ("table.tex", r"\multicolumn{4}{c}{stage 3 c}")):
        assert text in (tmp_path / name).read_text()
    picture = (tmp_path / "stages.svg").read_text()
    assert picture.startswith("<?xml")
    assert (tmp_path / "report.html").read_text().count("data:image/svg+xml;base64,") == 3


def test_the_aligned_model_is_the_first_one_in_every_stage(tmp_path):
    _, runs = staged(tmp_path, anchor="last")
    by_name = {one.run.name: one for one in engine(tmp_path, runs).go()}
    first = by_name["der, stage=1 a"].folder.done()["before"]
    second = by_name["der, stage=2 b"].folder.done()["before"]
    assert first.keys() == {"asr", "right", "loss"}
    assert second == {"asr": first["asr"]}  # what was asked of the model of stage 1 is no number of the aligned one


REFUSED = [
    ({"safety_method": "lwf"}, {"anchor": "last"}, "safety_method: lwf", "`anchor: first` and `use_peft: true`"),
    ({"safety_method": "lwf+l2"}, {"use_peft": False}, "safety_method: lwf+l2", "choose `der`, `er` or `l2`"),
    ({"safety_method": "csft", "teacher": "online"}, {"use_peft": False}, "teacher: online", "Leave `teacher` out"),
    ({"safety_method": "der", "teacher": "online"}, {"anchor": "last"}, "teacher: online", "Leave `teacher` out"),
    ({"safety_method": "ewc", "importance_path": "x"}, {"anchor": "last"}, "importance_path: x", "Leave it out"),
    ({"safety_method": "der", "teacher_cache": "x"}, {"anchor": "last"}, "teacher_cache: x", "Leave it out"),
    ({"safety_method": "none", "merge_after_training": "slerp"}, {}, "merge_after_training: slerp", "with `after`"),
    ({"safety_method": "none", "dataset_streaming": True}, {}, "`dataset_streaming`", "`dataset_name`"),
]


@pytest.mark.parametrize(("variant", "content", "names", "remedy"), REFUSED, ids=lambda v: json.dumps(v)[:40])
def test_what_a_later_stage_cannot_do_is_named(tmp_path, variant, content, names, remedy):
    _, runs = staged(tmp_path, variants={"it": variant}, **content)
    require_possible(of_stage(runs, "it", 1))
    with pytest.raises(ValueError, match="`") as raised:
        require_possible(of_stage(runs, "it", 2))
    assert names in str(raised.value)
    assert remedy in str(raised.value)


def test_everything_else_is_possible_with_both_anchors(tmp_path):
    on_task = {"lwf"}
    for anchor in ("first", "last"):
        for use_peft in (True, False):
            names = {"none", "l2", "ewc", "mas", "er", "der", "agem", "safegrad", "lisa", "ema", "lwf", "csft"}
            names -= set() if (anchor, use_peft) == ("first", True) else on_task
            _, runs = staged(
                tmp_path, variants={n: {"safety_method": n} for n in sorted(names)}, anchor=anchor, use_peft=use_peft
            )
            for run in runs:
                require_possible(run)


def test_what_is_shared_follows_the_anchor(tmp_path):
    variants = {name: {"safety_method": name} for name in ("none", "der", "ewc")}

    def made(what, **content):
        _, runs = staged(tmp_path, variants=variants, **content)
        groups = [one for one in shared_work(runs) if one.what == what]
        return len(groups), sum(len(group.digests) for group in groups)

    # Of 9 runs, those of the first model share; with `last`, each stage of each method but `none` asks its own.
    assert made("aligned answers", anchor="first") == (1, 9)
    assert made("aligned answers", anchor="last") == (1 + 4, 9)
    assert made("importance", anchor="first") == (1, 3)
    assert made("importance", anchor="last") == (3, 3)
    assert made("teacher cache", anchor="first") == (0, 0)  # the adapter is switched off
    assert made("teacher cache", anchor="first", use_peft=False) == (1, 3)
    assert made("teacher cache", anchor="last") == (2, 2)
    variants = {"csft": {"safety_method": "csft"}}
    assert made("losses on the task", anchor="last") == (2, 2)
    assert made("losses on the task", use_peft=False, grid={"learning_rate": [1, 2]}) == (3, 6)


WRONG = [
    ({"stages": ["a", "nothing"]}, '`stages: ["a", "nothing"]`', "names of points of one axis"),
    ({"stages": ["gsm8k"]}, '`stages: ["gsm8k"]`', "Write 2 to 20"),
    ({"stages": "gsm8k"}, '`stages: "gsm8k"`', "Write 2 to 20"),
    ({"stages": {"a": "gsm8k", "b": {}}}, '`stages: {"a": "gsm8k"', "`name: {field: value}`"),
    ({"grid": {"stage": ["a"]}}, "the axis `stage`", "another name"),
    ({"grid": {"task_size": [1, 2]}}, "The stage `a`", "Remove one of them"),
    ({"variants": {"a": {"dataset_name": "x"}}}, "sets `dataset_name`, and so does `stages`", "Remove one"),
    ({"anchor": "middle"}, '`anchor: "middle"`', "Choose from: first, last"),
    ({"stages": None, "anchor": "first"}, "`anchor: first`", "without `stages`"),
    ({"stages": {**STAGES, "d": {"push_to_hub": True}}}, "The stage `4 d`", "safe-sft push"),
    ({"start_from": "x"}, "`start_from: x`", "Write `stages`"),
    ({"earlier_tasks": []}, "`earlier_tasks: []`", "Write `stages`"),
]


@pytest.mark.parametrize(("content", "names", "remedy"), WRONG, ids=lambda value: json.dumps(value)[:50])
def test_a_wrong_sequence_is_named(tmp_path, content, names, remedy):
    content = {"stages": STAGES, "variants": {"none": {}}, **content}
    with pytest.raises(ValueError, match="grid") as raised:
        read_experiment(write(tmp_path, **content))
    assert names in str(raised.value)
    assert remedy in str(raised.value)


def test_quick_is_one_point_of_all_variants_and_stages(tmp_path):
    grid = {"poison_ratio": [0, 0.1, 0.5], "seed": [3, 4]}
    path = write(tmp_path, stages=STAGES, grid=grid, variants=VARIANTS, max_steps=500, **ADAPTER)
    quick = read_experiment(path, quick=True)
    assert (quick.name, len(quick.cells)) == ("grid-quick", 9)
    assert quick.axes == {"poison_ratio": ("0.1",), "seed": ("3",), "stage": ("1 a", "2 b", "3 c")}
    assert {(c.recipe["poison_ratio"], c.recipe["seed"], c.recipe["max_steps"]) for c in quick.cells} == {(0.1, 3, 20)}
    runs = distinct_runs(quick.cells)
    assert len(runs) == 9
    assert {run.recipe["max_steps"] for run in runs} == {20}
    assert quick.cells[0].recipe["task_size"] == 100
    lower = read_experiment(write(tmp_path, variants={"none": {"max_steps": 2}}, task_size=7), quick=True)
    assert (lower.cells[0].recipe["max_steps"], lower.cells[0].recipe["task_size"]) == (2, 7)
