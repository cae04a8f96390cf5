"""Whatever happens while a file or folder is written, its path holds the old or the new one, and nothing is left."""

import json
import os
import re
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from safe_sft.data.files import write_rows
from safe_sft.demo.outcomes import Outcome, plot_outcomes
from safe_sft.evaluation import Rate
from safe_sft.evaluation.judges.api import ApiJudge
from safe_sft.importance.partial import PartialSums
from safe_sft.merging.writer import Entry, write_shards
from safe_sft.storage.folders import complete_folder
from safe_sft.storage.writing import (
    complete_file,
    remove_unfinished,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)

PACKAGE = Path(__file__).parents[2] / "safe_sft"
ROWS = Dataset.from_list([{"prompt": "a", "completion": "b"}])
RATE = Rate(1, 2)
ONES = {"w": torch.ones(2)}
WRITERS = {
    "text": lambda path: write_text(path, "new"),
    "bytes": lambda path: write_bytes(path, b"new"),
    "JSON": lambda path: write_json(path, {"new": 1}),
    "tensors": lambda path: write_tensors(path, ONES),
    "sums": lambda path: PartialSums(path, "request", seconds=0).step(ONES, 1),
    "plot": lambda path: plot_outcomes([Outcome("none", RATE, RATE, RATE, 0.1, 1.0)], path),
    **{f"rows{suffix}": lambda path: write_rows(ROWS, path) for suffix in (".jsonl", ".json", ".csv", ".parquet")},
}


def path_of(folder, name):
    return folder / f"file.{name.partition('.')[2]}"


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_takes_the_place_of_the_old_file(tmp_path, name):
    path = path_of(tmp_path / "made", name)
    WRITERS[name](path)
    size = path.stat().st_size
    path.write_text("old")
    WRITERS[name](path)
    assert path.stat().st_size == size
    assert path.read_bytes() != b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, name):
    def fails(source, target):
        assert Path(source).parent == Path(target).parent
        raise OSError("no space left")

    path = path_of(tmp_path, name)
    path.write_text("old")
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        WRITERS[name](path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [True, False])
def test_a_failure_in_the_middle(tmp_path, old):
    path = tmp_path / "file"
    if old:
        path.write_text("old")
    with suppress(KeyboardInterrupt), complete_file(path) as temporary:
        temporary.write_text("ha")
        raise KeyboardInterrupt
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"] * old


def test_a_streamed_file_that_fails_in_the_middle(tmp_path):
    def blocks(entry):
        yield torch.ones(2)
        raise ArithmeticError

    path = tmp_path / "model.safetensors"
    path.write_text("old")
    with pytest.raises(ArithmeticError):
        write_shards(tmp_path, "model", [Entry("w", (4,), torch.float32)], blocks)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with complete_file(path) as first, complete_file(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert not path.exists()
    assert path.read_text() == "first"  # the last to finish
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    path = tmp_path / "part[1]"
    with complete_file(path) as left, complete_file(path) as going_on:
        for file in (path, left, going_on, tmp_path / "part1", tmp_path / "other.tmp"):
            file.write_text("")
            os.utime(file, (0, 0))
        os.utime(going_on)
        remove_unfinished(path)
        assert set(tmp_path.iterdir()) == {path, going_on, tmp_path / "part1", tmp_path / "other.tmp"}
        left.write_text("")


def test_a_verdict_is_kept_whole(tmp_path, monkeypatch):
    judge = ApiJudge("m", "http://localhost:9", cache=tmp_path)
    monkeypatch.setattr(judge, "_send", lambda body: {"choices": [{"message": {"content": '{"verdict": "refused"}'}}]})
    judge.judge(["a"], ["b"])
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_text())["verdict"] == "refused"


def test_a_folder_that_fails_in_the_middle(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "file").write_text("old")
    with suppress(KeyboardInterrupt), complete_folder(output, overwrite=True) as folder:
        (folder / "file").write_text("ha")
        raise KeyboardInterrupt
    assert (output / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


def test_a_folder_that_another_process_filled_first_is_kept(tmp_path):
    output = tmp_path / "out"
    with ExitStack() as late:
        (late.enter_context(complete_folder(output, overwrite=False)) / "file").write_text("late")
        with complete_folder(output, overwrite=False) as early:
            (early / "file").write_text("early")
        with pytest.raises(FileExistsError):
            late.close()
    assert (output / "file").read_text() == "early"
    assert list(tmp_path.iterdir()) == [output]


#: A script and recipes in folders that are thrown away, answers and a log that are added line by line, and a file that
#: is moved whole.
ELSEWHERE = {
    *("evaluation/utility/sandbox_launcher.py", "cli/recipe_arguments.py", "cli/experiment.py"),
    *("evaluation/answering.py", "experiments/engine.py", "experiments/measured.py"),
}
WRITES = re.compile(
    r"""os\.replace\(|(?<!temporary)\.write_(text|bytes)\(|(?<!temporary)\.open\("[wax]|(?<!\.)\bopen\([^)]*"[wax]"""
    r"""|\.(savefig|to_csv|to_json|to_parquet)\((?!temporary|buffer)"""
)


def test_no_other_room_writes_files_by_itself():
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "storage"]
    assert {str(path.relative_to(PACKAGE)) for path in files if WRITES.search(path.read_text())} == ELSEWHERE
