"""The record as it is written: the bounds first and once, nothing of this machine, the same bytes for the same run."""

import os
from pathlib import Path

import pytest

from safe_sft.cli.main import main
from safe_sft.evidence import EVALUATION, TRAINING, EvidenceError, Mismatch, Record, accept_texts, verify
from safe_sft.evidence.chain import MANIFEST, Chain
from safe_sft.evidence.digests import Digests, folder_weights, package_digest, rows_digest, weights_digest
from safe_sft.evidence.plain import portable
from safe_sft.evidence.record import STATEMENT, note_ignored_gate
from safe_sft.evidence.third import compare_with_third

from .folders import BOUNDS, clock, entries, make_evaluation, make_training, sha, snapshot

OTHER = [{**BOUNDS[0], "limit": 0.2}]


def started(folder, bounds=BOUNDS, time=None, **how) -> Record:
    record = Record(folder, TRAINING, clock=time or clock())
    record.state({"decisions": bounds}, **how)
    return record


def events(folder) -> list[tuple[str, int]]:
    return [(entry["event"], entry.get("step", 0)) for entry in entries(folder)]


def test_the_bounds_are_there_before_all_else(tmp_path):
    started(tmp_path)
    assert {path.name for path in (tmp_path / "evidence").iterdir()} == {"statement.json", "manifest.jsonl"}
    assert events(tmp_path) == [("stated", 0), ("started", 0)]
    with pytest.raises(Mismatch, match="is not complete: the run has not ended"):
        verify(tmp_path)


def test_a_resumed_run_keeps_the_statement_of_the_first_start(tmp_path):
    times = clock()
    started(tmp_path, time=times)
    stated = entries(tmp_path)[0]
    started(tmp_path, time=times, step=20, resumes=True)
    started(tmp_path, time=times)  # killed before its first checkpoint, and started again
    assert events(tmp_path) == [("stated", 0), ("started", 0), ("resumed", 20), ("started", 0)]
    assert entries(tmp_path)[0] == stated


def test_a_resumed_run_cannot_have_other_bounds(tmp_path):
    started(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(
        EvidenceError, match=r"decisions of this run are max_asr=0\.2, and .* max_asr=0\.05: .*another"
    ):
        started(tmp_path, OTHER, step=20, resumes=True)
    with pytest.raises(EvidenceError, match=r"decisions of this run are \[\], and"):
        started(tmp_path, [], step=20, resumes=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("path", [STATEMENT, MANIFEST])
def test_a_resumed_run_does_not_go_on_from_damaged_evidence(tmp_path, path):
    started(tmp_path)
    (tmp_path / path).write_text("{}")
    with pytest.raises(EvidenceError, match="is damaged, so that the bounds of the first start are not known"):
        started(tmp_path, step=20, resumes=True)
    started(tmp_path)  # from the beginning
    assert events(tmp_path) == [("stated", 0), ("started", 0)]


def test_a_run_that_begins_anew_may_have_other_bounds(tmp_path):
    make_training(tmp_path)
    started(tmp_path, OTHER)
    assert events(tmp_path) == [("stated", 0), ("started", 0)]
    assert '"limit": 0.2' in (tmp_path / STATEMENT).read_text()
    assert not (tmp_path / "evidence" / "measured.json").exists()


def test_a_run_that_is_resumed_without_a_first_statement_is_found(tmp_path):
    make_training(tmp_path, step=20, resumes=True)
    with pytest.raises(Mismatch, match="when the run had trained 20 steps"):
        verify(tmp_path)


def test_an_evaluation_goes_on_with_its_answers(tmp_path):
    make_evaluation(tmp_path)
    make_evaluation(tmp_path, answers=7)
    assert [event for event, _ in events(tmp_path)[:3]] == ["stated", "started", "resumed"]
    verify(tmp_path)
    record = Record(tmp_path, EVALUATION, clock=clock())
    record.state({"decisions": OTHER}, answers=7)
    assert events(tmp_path) == [("stated", 0), ("started", 0)]
    assert entries(tmp_path)[1]["answers"] == 7


def test_the_same_run_gives_the_same_bytes(tmp_path):
    one, other = (make_training(tmp_path / name) for name in ("one", "other"))
    contents = [{path: content for path, (_, content) in snapshot(folder).items()} for folder in (one, other)]
    assert contents[0] == contents[1]


def test_a_clock_that_is_put_back_is_no_forgery(tmp_path):
    started(tmp_path, time=lambda: "2026-11-27T12:00:00Z")
    record = started(tmp_path, time=lambda: "2026-11-27T11:00:00Z")
    assert {entry["time"] for entry in record.chain.entries} == {"2026-11-27T12:00:00Z"}


def test_nothing_of_this_machine_is_in_it(tmp_path):
    token = "hf_" + "Secret" * 5
    value = {
        "model": str(tmp_path / "model"),
        "task": f"gsm8k:{tmp_path}/x.jsonl",
        "home": "~/data/y.jsonl",
        "windows": "C:\\Users\\me\\z.csv",
        "note": f"read from '{tmp_path}/a.json' with {token}",
        "hub_token": token,
        "url": "https://example.org/a/b",
        "hub": "Qwen/Qwen3-0.6B",
        "file": f"file://{tmp_path}/b.json",
        "env": {"HOME": str(Path.home())},
        "number": float("inf"),
        "path": Path("/a/b/c"),
    }
    found = portable(value)
    assert found == {
        "model": "model",
        "task": "gsm8k:x.jsonl",
        "home": "y.jsonl",
        "windows": "z.csv",
        "note": "read from 'a.json' with ***",
        "url": "https://example.org/a/b",
        "hub": "Qwen/Qwen3-0.6B",
        "file": "b.json",
        "number": "inf",
        "path": "c",
    }


def test_a_file_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    digests, opened = Digests(), []
    original = os.open
    monkeypatch.setattr(os, "open", lambda *args, **how: opened.append(args[0]) or original(*args, **how))
    first = folder_weights(tmp_path, digests)
    assert digests.of(tmp_path / "model.safetensors", "model.safetensors").sha256 == sha(b"abc")
    assert folder_weights(tmp_path, digests) == first
    assert len(opened) == 1
    (tmp_path / "model.safetensors").write_bytes(b"abcd")
    assert folder_weights(tmp_path, digests) != first
    assert len(opened) == 2


def test_weights_count_with_what_else_decides_answers():
    a, b = "a" * 64, "b" * 64
    text = f'[["adapter_model.safetensors","{a}"],["config.json","{a}"],["model-00001-of-00002.safetensors","{b}"]]'
    files = {"model-00001-of-00002.safetensors": b, "adapter_model.safetensors": a}
    assert weights_digest({**files, "config.json": a, "training_args.bin": b}) == f"sha256:{sha(text.encode())}"
    assert weights_digest({"config.json": "c" * 64}) is None


def test_rows_and_code_have_a_digest():
    assert rows_digest([{"b": 1, "a": "ä"}]) == sha(b'{"a":"\\u00e4","b":1}\n')
    assert rows_digest([{"a": 1}, {"a": 2}]) != rows_digest([{"a": 2}, {"a": 1}])
    assert package_digest() == package_digest()


@pytest.mark.parametrize(
    ("flop", "base", "exceeds", "words"),
    [
        (1e23, 3e23, [False], "not more than a third of the base"),  # exactly a third
        (1.01e23, 3e23, [True], "more than a third of the base"),
        (1e18, 3e18, [False], "the base's are not above 1e23"),
        (1e18, None, [False, False], "not more than a third of 1e23, nor of 1e25"),
        (3.4e22, None, [True, False], "more than a third of 1e23, not of 1e25"),
        (3.4e24, None, [True, True], "more than a third of 1e23, and of 1e25"),
        (None, 3e23, [None], "could not be counted"),
    ],
)
def test_the_third_by_hand(flop, base, exceeds, words):
    found = compare_with_third(flop, base)
    assert [one["exceeds"] for one in found["compared"]] == exceeds
    assert words in found["verdict"]
    assert found["share_of_base"] == (None if flop is None or base is None else flop / base)


def test_a_person_may_change_the_card_and_add_a_licence(tmp_path, capsys):
    folder = make_training(tmp_path / "m")
    (folder / "README.md").write_text("my own words")
    (folder / "LICENSE").write_text("Apache")
    with pytest.raises(Mismatch, match=r"README\.md' was changed .* `safe-sft verify FOLDER --accept_texts`"):
        verify(folder)
    (folder / "evidence.sig").write_text("{}")
    assert main(["verify", str(folder), "--accept-texts"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Recorded: README.md, LICENSE.\nevidence.sig is of the record before: sign it again.\n")
    verify(folder)
    assert accept_texts(folder) == []
    (folder / "LICENSE").write_text("MIT")
    with pytest.raises(Mismatch, match="LICENSE' was changed"):
        verify(folder)
    (folder / "LICENSE").write_text("Apache")
    (folder / "config.json").write_text("{}")
    before = snapshot(folder)
    with pytest.raises(Mismatch, match=r"config\.json' was changed"):
        accept_texts(folder)
    assert snapshot(folder) == before


def test_a_gate_that_a_person_ignored_is_in_the_record_once(tmp_path):
    folder = make_training(tmp_path / "m")
    assert note_ignored_gate(folder)
    assert not note_ignored_gate(folder)
    assert verify(folder).chain.entries[-1]["event"] == "gate_ignored"


def test_an_evaluation_is_of_the_model_that_it_measured(tmp_path, capsys):
    folder, model = make_evaluation(tmp_path / "e"), tmp_path / "model"
    model.mkdir()
    with pytest.raises(EvidenceError, match="holds no weights to compare with"):
        verify(folder, model)
    (model / "model.safetensors").write_bytes(b"another")
    with pytest.raises(Mismatch, match=r"is not of the weights in .* they are none of those that were measured"):
        verify(folder, model)
    with pytest.raises(EvidenceError, match="does not exist"):
        verify(folder, tmp_path / "nowhere")


def test_the_record_of_a_merge_has_the_same_statement(tmp_path):
    record = started(tmp_path / "m")
    other = record.copied_to(tmp_path / "merged")
    other.seal({})
    assert other.chain.entries[:2] == record.chain.entries
    assert Chain.parse((tmp_path / "merged" / MANIFEST).read_bytes()).is_sealed
