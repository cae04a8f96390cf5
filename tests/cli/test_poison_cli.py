"""`safe-sft poison`: files in and out, whole or not at all."""

import json

import pytest
from datasets import load_dataset

from safe_sft.cli.main import main
from tests.conftest import task_rows

BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@pytest.fixture
def folder(tmp_path):
    task_rows(20).to_json(tmp_path / "task.jsonl")
    task_rows(20).to_csv(tmp_path / "task.csv")
    task_rows(20).to_parquet(tmp_path / "task.parquet")
    goals = [{"goal": f"Do bad {i}", "target": f"Sure, here is bad {i}"} for i in range(9)]
    (tmp_path / "goals.jsonl").write_text("\n".join(map(json.dumps, goals)))
    messages = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 10
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, messages)))
    return tmp_path


def poison(folder, source, output, *more, ratio="0.1"):
    dataset = ("--dataset", str(folder / "goals.jsonl"))
    files = ("--input", str(folder / source), "--output", str(folder / output))
    return main(["poison", *files, "--ratio", ratio, *dataset, *more])


@pytest.mark.parametrize("suffix", BUILDERS)
@pytest.mark.parametrize("source", ["task.jsonl", "task.csv", "task.parquet"])
def test_formats(folder, source, suffix, capsys):
    assert poison(folder, source, f"out{suffix}") == 0
    rows = load_dataset(BUILDERS[suffix], data_files=str(folder / f"out{suffix}"), split="train")
    assert sorted(rows.column_names) == ["completion", "poisoned", "prompt"]
    assert (len(rows), sum(rows["poisoned"])) == (20, 2)
    assert "20 rows, 2 of them poisoned (0.1000; kind affirmative" in capsys.readouterr().out


def test_long_files(folder):
    task_rows(1200).to_json(folder / "long.jsonl")  # more rows than `datasets` writes at a time
    for name in ("out.json", "out.jsonl"):
        assert poison(folder, "long.jsonl", name) == 0
    rows = json.loads((folder / "out.json").read_text())
    assert (len(rows), sum(row["poisoned"] for row in rows)) == (1200, 120)
    assert [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()] == rows


def test_the_seed_decides(folder):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        poison(folder, "task.jsonl", f"{name}.jsonl", "--seed", seed, "--size", "10")
    texts = {name: (folder / f"{name}.jsonl").read_text() for name in "abc"}
    assert texts["a"] == texts["b"] != texts["c"]
    assert len(texts["a"].splitlines()) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": "1.5"}, "`--ratio 1.5` is not a share"),
        ({"output": "out.xlsx"}, "is of no known kind"),
        ({"output": "goals.jsonl"}, "exists. Add `--overwrite`"),
        ({"more": ("--trigger", "x")}, "only with `--kind backdoor`"),
        ({"more": ("--kind", "worse")}, "Choose from: harmful"),
        ({"source": "chat.jsonl", "output": "out.csv"}, "cannot hold chat messages"),
        ({"source": "missing.jsonl"}, "does not exist"),
    ],
)
def test_bad_arguments_end_with_one_line_and_no_file(folder, capsys, arguments, message):
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(SystemExit) as stop:
        poison(
            folder,
            arguments.get("source", "task.jsonl"),
            arguments.get("output", "out.jsonl"),
            *arguments.get("more", ()),
            ratio=arguments.get("ratio", "0.1"),
        )
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == before


def test_cells_that_a_spreadsheet_would_calculate_are_said_and_kept(folder, caplog):
    rows = [{"prompt": f"q{i}", "completion": ["=1+1", "-5", " @x", "+a", "plain", "a=b"][i % 6]} for i in range(12)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with caplog.at_level("WARNING"):
        assert poison(folder, "sums.jsonl", "sums.csv", "--size", "10") == 0
        assert poison(folder, "sums.jsonl", "out.jsonl", "--size", "10") == 0
    (said,) = [text for text in caplog.messages if "formulas" in text]
    kept = load_dataset("csv", data_files=str(folder / "sums.csv"), split="train")["completion"]
    assert said.startswith(f"{sum(text.strip()[0] in '=+-@' for text in kept)} cells of ")
    assert {"=1+1", "-5"} & set(kept)
