"""`safe-sft screen`, and `screen` in a recipe: files in and out, bounds, and what trains."""

import json
import re

import pytest
import yaml

from safe_sft.cli.main import main
from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.run import screen_task
from safe_sft.screening import screener
from safe_sft.screening.openings import Openings
from tests.bad_inputs.table import good_recipe, make_good_inputs
from tests.conftest import make_tokenizer, task_rows


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = make_good_inputs(tmp_path_factory.mktemp("good"))
    task_rows(40).to_json(folder / "rows.jsonl")
    return folder


def screen(good, here, *more, model="model"):
    words = ["--model", f"{good}/{model}", "--input", f"{good}/rows.jsonl", "--output", f"{here}/out"]
    return main(["screen", *words, "--refusals", "No, I can not", "I'm sorry", "--max_length", "400", *more])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_scored_and_parted(good, tmp_path, capsys):
    values = sorted(row["screen_score"] for row in scored(good, tmp_path / "first"))
    files = ("--keep", f"{tmp_path}/keep.jsonl", "--drop", f"{tmp_path}/drop.jsonl")
    bound = ("--threshold", str(values[30] - 1e-6), "--max-flagged", "0.2")  # files of rows round
    assert screen(good, tmp_path, *bound, *files, "--streaming") == 1
    assert "More than `--max_flagged 0.2` of the rows are flagged" in capsys.readouterr().out
    kept, dropped = lines(tmp_path / "keep.jsonl"), lines(tmp_path / "drop.jsonl")
    assert (len(kept), len(dropped)) == (30, 10)
    assert {row["prompt"] for row in kept} | {row["prompt"] for row in dropped} == set(task_rows(40)["prompt"])
    assert json.loads((tmp_path / "out" / "screening.json").read_text())["flagged"]["successes"] == 10
    assert "not shown to be clean" in (tmp_path / "out" / "report.html").read_text()


def scored(good, here, *more):
    assert screen(good, here, *more) == 0
    return lines(here / "out" / "scores.jsonl")


def test_a_judge_is_asked_and_an_adapter_is_heard(good, tmp_path):
    plain = scored(good, tmp_path / "a", "--judge", "refusal_phrases")
    assert {row["screen_refusal_phrases"] for row in plain} == {"complied"}
    adapted = scored(good, tmp_path / "b", "--adapter", f"{good}/adapter")
    assert [row["screen_score"] for row in adapted] == pytest.approx([r["screen_score"] for r in plain], abs=1e-4)


def test_a_model_that_refuses_nothing_is_an_error(good, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["screen", "--model", f"{good}/model", "--input", f"{good}/rows.jsonl", "--output", f"{tmp_path}/out"])
    assert stop.value.code == 2
    assert "The model refuses 0 of the 96 harmful requests" in capsys.readouterr().err
    assert not (tmp_path / "out" / "screening.json").exists()


def recipe(good, here, **fields):
    path = here / "recipe.yaml"
    rows = {"dataset_name": f"{good}/rows.jsonl", "safety_dataset_name": None, "max_length": 400}
    content = {**good_recipe(good, here), "safety_method": "none", **rows, **fields}
    path.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not None}))
    return ["train", "--config", str(path)]


@pytest.fixture
def refusing(monkeypatch):
    """The tiny model refuses nothing: it is said how it would."""
    own = Openings.given(["No, I can not"], make_tokenizer())
    monkeypatch.setattr(screener, "find_openings", lambda *_, **__: own)


@pytest.fixture
def middle(good, tmp_path, refusing):
    """The score that ten of the forty rows reach."""
    words = recipe(good, tmp_path, screen="report", output_dir=f"{tmp_path}/first", max_steps=1)
    assert main(words) == 0
    folder = tmp_path / "first" / screen_task.FOLDER
    assert json.loads((folder / "screening.json").read_text())["flagged"]["n"] == 40
    return sorted(row["screen_score"] for row in lines(folder / "scores.jsonl"))[30] - 1e-6


def test_a_recipe_drops_what_is_flagged_and_the_card_says_so(good, tmp_path, middle, caplog):
    assert main(recipe(good, tmp_path, screen="drop", screen_threshold=middle)) == 0
    assert "10 of 40 training rows are flagged and left out" in caplog.text
    card = (tmp_path / "out" / "README.md").read_text()
    assert "rows_screened_out" in card or "rows screened out" in card


def test_a_recipe_ends_before_training_where_too_many_are_flagged(good, tmp_path, middle, capsys):
    assert main(recipe(good, tmp_path, screen="fail", screen_threshold=middle, screen_max_flagged=0.2)) == 1
    assert "10 of 40 training rows are flagged (25.00%)" in capsys.readouterr().err
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert main(recipe(good, tmp_path, screen="fail", screen_threshold=middle, screen_max_flagged=0.25)) == 0


def test_without_screen_nothing_is_looked_at(good, tmp_path):
    assert main(recipe(good, tmp_path)) == 0
    assert not (tmp_path / "out" / screen_task.FOLDER).exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"screen": "remove"}, "`screen='remove'` is unknown. Choose from: report, drop, fail"),
        ({"screen": False}, "`screen=False` is unknown"),
        ({"screen": "fail", "screen_max_flagged": 2}, "`screen_max_flagged=2` is no share"),
        ({"screen": "report", "screen_threshold": "high"}, "`screen_threshold='high'` must be a finite number"),
    ],
)
def test_fields_that_cannot_be_used(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SafeScriptArguments(**fields)
