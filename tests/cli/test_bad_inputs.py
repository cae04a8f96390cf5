"""Every bad input ends before anything is trained: status 2, and one message with the bad value and what to do."""

import logging

import pytest
import transformers

from safe_sft.cli.main import main
from tests.bad_inputs import (
    bounds,
    commands,
    experiments,
    kept_files,
    model_folders,
    python_calls,
    recipe_fields,
    row_files,
)
from tests.bad_inputs.table import make_good_inputs, prepare

_TABLES = (recipe_fields, row_files, model_folders, commands, experiments, kept_files, bounds)
ROWS = [row for table in _TABLES for row in table.ROWS]
CALLS = python_calls.ROWS


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    return make_good_inputs(tmp_path_factory.mktemp("good"))


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "train", lambda *_, **__: pytest.fail("training has started"))


def test_the_table_is_long_and_no_row_is_there_twice():
    names = [row.id for row in (*ROWS, *CALLS)]
    assert len(names) >= 250
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_command(row, good, tmp_path, capsys, caplog):
    caplog.set_level(logging.CRITICAL)
    words = prepare(row, good, tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    *_, line = said.err.splitlines()
    assert line.startswith(f"safe-sft {words[0]}: error: ")
    assert stopped.value.code == 2
    for needed in (row.names, row.remedy):
        assert needed.replace("{here}", str(tmp_path)).replace("{good}", str(good)) in line


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row.id)
def test_a_call(row, good, tmp_path):
    with pytest.raises((ValueError, TypeError, OSError)) as raised:
        row.call(good, tmp_path)
    assert "\n" not in str(raised.value)
    for needed in (row.names, row.remedy):
        assert needed in str(raised.value)
