"""A full or read-only disk is one line with the path and what to do, whoever meets it."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from safe_sft.cli.command import command
from safe_sft.cli.main import main
from safe_sft.storage.disk import disk_problem, writing
from safe_sft.storage.folders import complete_folder
from safe_sft.storage.writing import complete_file, write_json, write_tensors
from tests.cli.test_exits import folder, line_of  # noqa: F401

NUMBERS = {errno.ENOSPC: "The disk is full", errno.EROFS: "The disk is read-only", errno.EACCES: "Permission denied"}


def os_error(number, *path):
    return OSError(number, os.strerror(number), *path)


@pytest.mark.parametrize(("number", "said"), NUMBERS.items())
def test_the_problem_has_path_and_remedy(number, said):
    error = RuntimeError("of a library")
    error.__cause__ = os_error(number, "/some/file")
    for one in (error, error.__cause__):
        assert disk_problem(one).startswith(f"{said}: '/some/file'. ")


OTHERS = [
    ValueError("x"),
    OSError(errno.ENOENT, "no", "f"),
    ConnectionError("y"),
    KeyError(28),
    os_error(errno.EACCES),
]


@pytest.mark.parametrize("error", OTHERS)
def test_other_errors_are_no_problem_of_a_disk(error):
    error.__cause__ = None
    assert disk_problem(error) is None


def test_a_sentence_of_our_own_is_kept():
    error = ValueError("The model cannot be loaded, and what to do.")
    error.__cause__ = os_error(errno.EACCES, "/some/file")
    assert disk_problem(error) is None


@pytest.mark.parametrize(
    "error",
    [
        os_error(errno.ENOSPC),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_libraries_do_not_name_is_named(tmp_path, error, capsys):
    def run(_):
        with writing(tmp_path / "out"):
            raise error

    with pytest.raises(SystemExit) as stopped:
        command("demo", list, run)([])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"safe-sft demo: error: The disk is full: '{tmp_path / 'out'}'. Free space there, or choose a folder on "
        "another disk."
    )


def written(context, error):
    with context as place:
        if place.parent.is_dir() and not place.is_dir():
            place.write_text("half")
        raise error


def test_files_and_folders_that_are_written_are_named(tmp_path, monkeypatch):
    path = tmp_path / "f"
    for context in (complete_file(path), complete_folder(path, overwrite=False)):
        with pytest.raises(OSError, match=f"'{path}'"):
            written(context, os_error(errno.ENOSPC))
    with pytest.raises(ZeroDivisionError):
        written(complete_file(path), ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("pathlib.Path.write_text", fails)
    with pytest.raises(OSError, match=f"'{path}'"):
        write_json(path, {})
    monkeypatch.setattr("safetensors.torch.save_file", fails)
    with pytest.raises(OSError, match=f"'{path}'"):
        write_tensors(path, {"a": torch.ones(1)})


def fails(*_, **__):
    raise os_error(errno.ENOSPC)


#: What fails in each command, the words beside those that it needs, and what it was writing.
WRITES = {
    "init": ("pathlib.Path.write_text", "--output {folder}/r.yaml", "r.yaml'"),
    "poison": ("datasets.Dataset.to_json", "--dataset {folder}/goals.jsonl --output {folder}/p.jsonl", "p.jsonl'"),
    "importance": ("safetensors.torch.save_file", "--safety_dataset {folder}/safety.jsonl", "importance.safetensors'"),
    "evaluate": (
        "safe_sft.storage.writing.os.replace",
        "--prompts {folder}/prompts.jsonl --max_new_tokens 2 --output {folder}/report",
        "/report/",
    ),
    "train": (
        "transformers.Trainer._save_optimizer_and_scheduler",
        "--safety_eval false --output_dir {folder}/full",
        "/full'",
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_command(folder, name, monkeypatch, capsys):  # noqa: F811
    where, words, path = WRITES[name]
    (folder / "goals.jsonl").write_text('{"goal": "Do bad", "target": "Sure, here"}\n' * 5)
    monkeypatch.setattr(where, fails)
    with pytest.raises(SystemExit) as stopped:
        main([name, *line_of(name, folder, words.split())])
    monkeypatch.undo()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    *_, line = said.splitlines()
    assert line.startswith(f"safe-sft {name}: error: The disk is full: '{folder}")
    assert path in line
