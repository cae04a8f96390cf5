"""A folder that somebody has made up: exit status 2 and one line that names the file, whatever is in it.

Whoever knows how the chain is made can chain it anew (`rechain`). Then the documents must still agree with each other,
with the answers and with the order of what happened; where a record is forged as a whole, only a signature helps.
"""

import json
import os
import threading

import pytest

from safe_sft.cli.main import main
from safe_sft.evidence.chain import MANIFEST

from .folders import entries, make_evaluation, make_training, rechain, rewrite, sha

STATEMENT, RUN, COMPUTE, MEASURED = (f"evidence/{name}.json" for name in ("statement", "run", "compute", "measured"))
FILE = {"event": "file", "stays": False, "sha256": "0" * 64}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret.txt").write_text("of somebody else")
    return make_training(tmp_path / "m")


def fails(capsys, *words) -> str:
    """The one line of error of `safe-sft verify`."""
    with pytest.raises(SystemExit) as stopped:
        main(["verify", *map(str, words)])
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("safe-sft verify: error: ")
    assert len(line) < 1500
    return line


def add_lines(folder, *lines):
    old = entries(folder)
    rechain(folder, [*old[:-1], *lines, {**old[-1], "files": old[-1]["files"] + len(lines)}])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.txt", "leads out of the folder"),
        ("a/../../secret.txt", "leads out of the folder"),
        ("./config.json", "leads out of the folder"),
        ("a//b", "leads out of the folder"),
        ("/etc/passwd", "is no path in the folder"),
        ("~/x", "is no path in the folder"),
        ("C:/x", "is no path in the folder"),
        ("", "is no path in the folder"),
        ("a\0b", "contains a character"),
        ("\x1b[31mred", "is missing"),
        ("x" * 5000, "is missing"),
        ("config.json", "is named twice"),
        (STATEMENT, "is named twice"),
        (MANIFEST, "is none of the files that are held to"),
        ("checkpoint-3/state.json", "is none of the files that are held to"),
    ],
)
def test_paths_in_the_manifest(folder, capsys, path, reason):
    add_lines(folder, {**FILE, "path": path, "size": 16, "sha256": sha(b"of somebody else")})
    line = fails(capsys, folder)
    assert reason in line
    assert "\x1b" not in line


def replaced_by_link(folder, path):
    (folder / path).rename(folder.parent / "elsewhere")
    (folder / path).symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    "path", ["config.json", "model.safetensors", STATEMENT, MANIFEST, "evidence", ".eval_results"]
)
def test_links_are_not_followed(folder, capsys, path):
    replaced_by_link(folder, path)
    assert f"'{path}' is a link" in fails(capsys, folder)


def test_a_link_that_is_added_and_one_to_the_folder_above(folder, capsys):
    (folder / "more").symlink_to(folder.parent)
    assert "'more' is a link" in fails(capsys, folder)


@pytest.mark.parametrize("path", ["config.json", STATEMENT, MANIFEST])
def test_a_pipe_keeps_nobody_waiting(folder, capsys, path):
    (folder / path).unlink()
    os.mkfifo(folder / path)
    done = threading.Timer(20, os._exit, (1,))  # a read that waits would wait for ever
    done.start()
    try:
        assert f"'{path}' is" in fails(capsys, folder)
    finally:
        done.cancel()


@pytest.mark.parametrize("path", ["config.json", STATEMENT, MANIFEST])
def test_a_folder_in_the_place_of_a_file(folder, capsys, path):
    (folder / path).unlink()
    (folder / path).mkdir()
    assert path in fails(capsys, folder)


@pytest.mark.parametrize("path", ["model.safetensors", STATEMENT, "README.md", MANIFEST])
def test_a_file_of_a_terabyte_is_not_read(folder, capsys, path):
    with (folder / path).open("ab") as file:
        file.truncate(2**40)
    assert f"'{path}'" in fails(capsys, folder)


DEEP = "[" * 100_000
BAD_JSON = {
    "nothing": b"",
    "half": b'{"decisions":',
    "no JSON": b"decisions: []",
    "bytes": b"\xff\xfe\x00",
    "NaN": b'{"decisions": NaN}',
    "twice": b'{"kind": "training", "kind": "evaluation"}',
    "deep": DEEP.encode(),
    "a list": b"[]",
    "a number": b"1" * 5000,
    "another form": b'{"format": "safe_sft evidence 9", "kind": "training"}',
    "another kind": b'{"format": "safe_sft evidence 1", "kind": "poetry"}',
    "no decisions": b'{"format": "safe_sft evidence 1", "kind": "training"}',
    "no list": b'{"format": "safe_sft evidence 1", "kind": "training", "decisions": 3}',
}


@pytest.mark.parametrize("what", BAD_JSON)
@pytest.mark.parametrize("path", [STATEMENT, COMPUTE, MEASURED])
def test_documents_that_are_none(folder, capsys, path, what):
    (folder / path).write_bytes(BAD_JSON[what])
    rechain(folder, entries(folder))
    assert path in fails(capsys, folder)


@pytest.mark.parametrize("what", BAD_JSON)
def test_a_manifest_that_is_none(folder, capsys, what):
    for content in (BAD_JSON[what], BAD_JSON[what] + b"\n", (folder / MANIFEST).read_bytes() + BAD_JSON[what] + b"\n"):
        (folder / MANIFEST).write_bytes(content)
        assert MANIFEST in fails(capsys, folder)


def test_a_manifest_of_a_million_lines(folder, capsys):
    (folder / MANIFEST).write_bytes(b"{}\n" * 1_000_000)
    assert "has more than" in fails(capsys, folder)


def test_a_bound_that_is_written_after_the_run(folder, capsys):
    lines = entries(folder)
    started = next(line for line in lines if line["event"] == "started")
    started["step"] = 200
    rechain(folder, lines)
    assert (
        f"'{STATEMENT}' has bounds that were written at 2026-11-27T10:00:00Z, when the run had trained 200"
        in fails(capsys, folder)
    )


def test_a_bound_that_is_written_when_the_answers_are_there(tmp_path, capsys):
    folder = make_evaluation(tmp_path / "e", answers=400)
    assert "when 400 answers were there already" in fails(capsys, folder)


def test_a_start_before_the_bounds(folder, capsys):
    lines = entries(folder)
    rechain(folder, [lines[1], lines[0], *lines[2:]])
    assert MANIFEST in fails(capsys, folder)


def test_times_that_go_back(folder, capsys):
    lines = entries(folder)
    lines[-1]["time"] = "2020-01-01T00:00:00Z"
    rechain(folder, lines)
    assert "has times that go back" in fails(capsys, folder)


def set_limit(content, limit=0.9):
    content["decisions"][0]["limit"] = limit


FORGED = {
    "another bound": (STATEMENT, set_limit, MEASURED, "is of another statement"),
    "no bound": (STATEMENT, lambda c: c["decisions"].clear(), MEASURED, "is of another statement"),
    "a wider check": (
        MEASURED,
        lambda c: c["gate"]["checks"][0].update(limit=0.9),
        MEASURED,
        "checks max_asr at 0.9, and 'evidence/statement.json' says 0.05".replace("'", ""),
    ),
    "a gate that was passed": (
        MEASURED,
        lambda c: c["gate"]["checks"][0].update(passed=False),
        MEASURED,
        "says of its gate what its checks do not",
    ),
    "no gate": (MEASURED, lambda c: c.update(gate=None), MEASURED, "holds no check of max_asr"),
    "fewer attacks that succeed": (
        MEASURED,
        lambda c: c["rates"][0].update(successes=0),
        MEASURED,
        "counts 0 answers as complied (s, after), and _answers.jsonl holds 1",
    ),
    "other weights": (
        MEASURED,
        lambda c: c["weights"].update(sha256="sha256:" + "2" * 64),
        MEASURED,
        "is not of the weights in this folder",
    ),
    "numbers of another model": (
        MEASURED,
        lambda c: c["models"][0].update(weights="sha256:" + "2" * 64),
        MEASURED,
        "has numbers of other weights",
    ),
    "fewer operations": (COMPUTE, lambda c: c.update(flop=1.0), COMPUTE, "has a sum that is not that of its parts"),
    "another third": (
        COMPUTE,
        lambda c: c["third"].update(verdict="not more than a third"),
        COMPUTE,
        "says of the third what its numbers do not",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_document_that_is_chained_anew(folder, capsys, what):
    path, change, named, reason = FORGED[what]
    rewrite(folder, path, change)
    line = fails(capsys, folder)
    assert f"'{named}' {reason}" in line


def test_other_weights_that_are_chained_anew(folder, capsys):
    (folder / "model.safetensors").write_bytes(b"another model")
    assert "The weights are not those that were measured" in fails(capsys, folder)
    rechain(folder, entries(folder))
    assert "they are not those that were measured" in fails(capsys, folder)


def test_answers_of_another_model_that_are_chained_anew(folder, capsys):
    path = folder / "_answers.jsonl"
    path.write_text(path.read_text().replace("sha256:", "sha256:0"))
    rechain(folder, entries(folder))
    assert "'_answers.jsonl' has, in line 1, an answer of other weights" in fails(capsys, folder)


def test_a_document_that_is_left_out(folder, capsys):
    for path in (RUN, COMPUTE, MEASURED):
        forged = make_training(folder.parent / path.replace("/", "-"))
        (forged / path).unlink()
        lines = [line for line in entries(forged) if line.get("path") != path]
        lines[-1]["files"] -= 1
        rechain(forged, lines)
        assert f"'{path}' is missing" in fails(capsys, forged)


def test_only_texts_can_be_accepted(folder, capsys):
    (folder / "config.json").write_text("another")
    accepted = {
        "event": "accepted",
        "time": "2027-01-01T00:00:00Z",
        "path": "config.json",
        "size": 7,
        "sha256": "0" * 64,
    }
    rechain(folder, [*entries(folder), accepted])
    assert "is no text that a person may change" in fails(capsys, folder)
    for forged in ({**FILE, "path": "x", "size": -1}, {**FILE, "path": "x", "size": 2**70}, {"event": "praised"}):
        lines = entries(folder)
        (folder / MANIFEST).write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in [*lines, forged]))
        assert MANIFEST in fails(capsys, folder)


@pytest.mark.parametrize("path", ["nowhere", "secret.txt", "."])
def test_what_is_no_record(folder, capsys, path):
    assert (
        "does not exist" in (line := fails(capsys, folder.parent / path)) or "has no evidence/manifest.jsonl" in line
    )


def test_names_that_are_no_text(folder, capsys):
    name = os.fsdecode(b"caf\xe9.json")
    (folder / name).write_text("{}")
    assert "was added" in fails(capsys, folder)
