"""What was repaired or merged goes on from its models' evidence, and is pushed only as what a gate let through."""

import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from safe_sft.cli.main import main
from safe_sft.evidence import EvidenceError, Mismatch, attach, verify
from safe_sft.evidence.chain import MANIFEST
from safe_sft.evidence.digests import Digests, folder_weights
from safe_sft.evidence.strict import digest_file
from safe_sft.evidence.verify import _Examination
from safe_sft.hub.decision import PushRefused, require_pushable
from safe_sft.hub.push import push_folder

from .derived import make_evaluation_of, make_merge, make_repair, make_weights, weights_of
from .folders import entries, held, make_training, rechain, rewrite

MEASURED, STATEMENT = "evidence/measured.json", "evidence/statement.json"
#: Where the evidence of the model before lies in that of what was made of it.
BEFORE = "evidence/inputs/input_0"


@pytest.fixture
def tuned(tmp_path) -> Path:
    return make_training(tmp_path / "tuned")


@pytest.fixture
def repaired(tmp_path, tuned) -> Path:
    return make_repair(make_weights(tmp_path / "repaired", b"repaired"), tuned)


@pytest.fixture
def merged(tmp_path, tuned, repaired) -> Path:
    return make_merge(make_weights(tmp_path / "merged", b"merged"), tuned, repaired)


def refused(folder, kind=EvidenceError, **how) -> str:
    """The one sentence or two with which a push is refused."""
    with pytest.raises(kind) as found:
        require_pushable(folder, **how)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_a_chain_goes_on_from_that_of_the_model_before(tuned, repaired, merged):
    found = verify(merged)
    assert list(found.inputs) == ["input_0", "input_1"]
    (line, other) = (entry for entry in found.chain.entries if entry["event"] == "input")
    assert line["head"] == verify(tuned).chain.sealed_head
    assert other["head"] == verify(repaired).chain.sealed_head
    assert found.inputs["input_1"].inputs["input_0"].chain.head == verify(tuned).chain.head
    assert found.chain.entries[2]["event"] == "stated"  # behind them, so that the bounds are chained to them


def test_a_model_of_which_nothing_is_known_begins_a_chain(tmp_path):
    source = make_weights(tmp_path / "source", b"of anybody")
    found = verify(make_repair(make_weights(tmp_path / "r", b"r"), source))
    (line,) = (entry for entry in found.chain.entries if entry["event"] == "input")
    assert (line["head"], line["weights"]) == ("", weights_of(source))
    assert not found.inputs


def test_a_run_that_has_not_ended_is_no_evidence(tmp_path, tuned):
    lines = entries(tuned)
    rechain(tuned, [line for line in lines if line["event"] in ("stated", "started")])
    assert not verify(make_merge(make_weights(tmp_path / "m", b"m"), tuned)).inputs


def test_nothing_is_made_of_a_model_that_is_not_what_its_evidence_says(tmp_path, tuned):
    (tuned / "model.safetensors").write_bytes(b"another")
    target = make_weights(tmp_path / "m", b"m")
    with pytest.raises(EvidenceError, match=r"is of other weights than those in this folder\. Restore .* nothing is"):
        make_merge(target, tuned)
    assert not (target / "evidence").exists()


def test_a_repair_that_kept_its_bounds_is_let_through_and_changed_weights_are_not(repaired):
    require_pushable(repaired)
    (repaired / "model.safetensors").write_bytes(b"repairee")
    assert "The weights are not those that were measured" in refused(repaired)
    rechain(repaired, entries(repaired))
    assert "they are not those that were measured" in refused(repaired)


def test_a_repair_that_did_not_keep_them_is_not(tmp_path):
    folder = make_repair(make_weights(tmp_path / "r"), passed=False)
    assert "failed its safety gate" in refused(folder, PushRefused)
    require_pushable(folder, ignore_gate=True)
    assert entries(folder)[-1]["event"] == "gate_ignored"


def test_a_merge_needs_an_evaluation_with_a_gate_and_then_needs_no_flag(tmp_path, merged, capsys):
    said = refused(merged, PushRefused)
    assert "was merged, which measures nothing" in said
    assert "safe-sft evaluate" in said
    evaluation = make_evaluation_of(tmp_path / "e", merged)
    assert entries(evaluation)[0]["head"] == verify(merged).chain.sealed_head
    assert attach(merged, evaluation)
    assert not attach(merged, evaluation)  # it is there
    require_pushable(merged)
    assert len(verify(merged).evaluations) == 1
    assert main(["verify", str(merged)]) == 0
    assert "Evaluated since, by a gate of safety: passed." in capsys.readouterr().out
    assert attach(merged, make_evaluation_of(tmp_path / "e2", merged, passed=False))
    assert "did not pass the gate of the evaluation" in refused(merged, PushRefused)  # the last one counts
    copy = shutil.copytree(merged, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"swapped")
    assert "is not what its evidence says" in refused(copy)


def test_a_merge_without_evidence_is_not_let_through_by_removing_it(merged):
    shutil.rmtree(merged / "evidence")
    assert "was merged" in refused(merged, PushRefused)
    require_pushable(merged, ignore_gate=True)


def test_a_push_reads_each_file_of_weights_once(tmp_path, merged, monkeypatch):
    evaluation, read = make_evaluation_of(tmp_path / "e", merged), []
    monkeypatch.chdir(tmp_path)

    def counted(path, name, size=None):
        read.append(name)
        return digest_file(path, name, size)

    monkeypatch.setattr("safe_sft.evidence.digests.digest_file", counted)
    monkeypatch.setattr("safe_sft.hub.push.upload", lambda *_, **__: "pushed")
    assert push_folder(merged.relative_to(tmp_path), "me/merged", evaluation=evaluation) == "pushed"
    assert read.count("model.safetensors") == 1


def test_an_evaluation_of_a_model_without_evidence(tmp_path):
    model = make_weights(tmp_path / "m")
    with pytest.raises(EvidenceError, match=r"has no evidence that the evaluation .* could be added to\. Leave"):
        attach(model, make_evaluation_of(tmp_path / "e", model))
    require_pushable(model)


def test_a_gate_without_a_bound_of_safety_lets_nothing_through(tmp_path, merged):
    evaluation = make_evaluation_of(tmp_path / "e", merged)
    rewrite(evaluation, STATEMENT, lambda c: c["decisions"][0].update(bound="max_utility_drop"))
    digest = entries(evaluation)[1]["sha256"]

    def change(content):
        content["gate"]["checks"][0]["bound"] = "max_utility_drop"
        content["statement"] = digest

    rewrite(evaluation, MEASURED, change)
    attach(merged, evaluation)
    assert "did not pass the gate" in refused(merged, PushRefused)


REFERENCE = [{"name": "x", "weights": "sha256:" + "9" * 64}]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"weights": "sha256:" + "2" * 64}, "is not of the weights in"),
        ({"last": REFERENCE}, "is the one that others are compared with"),
    ],
)
def test_an_evaluation_of_another_model_is_not_added(tmp_path, merged, how, reason):
    evaluation = make_evaluation_of(tmp_path / "e", merged, **how)
    before = (merged / MANIFEST).read_bytes()
    with pytest.raises(EvidenceError, match=reason):
        attach(merged, evaluation)
    assert (merged / MANIFEST).read_bytes() == before


def test_an_evaluation_that_goes_on_from_another_chain_is_not_added(tmp_path, merged, tuned):
    other = make_merge(make_weights(tmp_path / "other", b"merged"), tuned)  # the same weights, made otherwise
    with pytest.raises(EvidenceError, match="goes on from the evidence of another model"):
        attach(merged, make_evaluation_of(tmp_path / "e", other))


def test_evidence_of_a_model_that_passed_does_nothing_for_one_that_did_not(tmp_path, repaired):
    failed = make_weights(tmp_path / "failed", b"unsafe")
    for name in ("evidence", "safety.json", "_answers.jsonl"):
        copy = shutil.copytree if (repaired / name).is_dir() else shutil.copy
        copy(repaired / name, failed / name)
    assert "'model.safetensors' was changed" in refused(failed)
    shutil.rmtree(failed / "evidence")
    assert "are of other weights than those there" in refused(failed, ignore_gate=True)  # not even so
    evaluation = make_evaluation_of(tmp_path / "e", repaired)
    plain = make_weights(tmp_path / "plain", b"unsafe")
    shutil.copytree(evaluation / "evidence", plain / "evidence")
    for name in ("answers.jsonl", "results.json"):
        shutil.copy(evaluation / name, plain / name)
    verify(plain)  # as the evidence of an evaluation, which its files are
    assert "is that of an evaluation, and holds to none of the weights" in refused(plain)


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A repaired adapter of one base; another one lies beside it."""
    make_weights(tmp_path / "base", b"base")
    make_weights(tmp_path / "safe", b"safe base")
    return make_repair(make_weights(tmp_path / "adapter", b"adapter", str(tmp_path / "base")))


def test_an_adapter_on_another_base(tmp_path, adapter, capsys):
    require_pushable(adapter)
    own = weights_of(adapter).rpartition(" + ")[2]
    on_safe = f"{weights_of(tmp_path / 'safe')} + {own}"
    evaluation = make_evaluation_of(tmp_path / "e", adapter, weights=on_safe)
    with pytest.raises(Mismatch, match=r"names the base .* and the adapter was measured on"):
        verify(evaluation, adapter)
    with pytest.raises(Mismatch, match="names the base"):
        attach(adapter, evaluation)
    content = (tmp_path / "base" / "model.safetensors").read_bytes()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"another base")
    assert "names the base" in refused(adapter)
    (tmp_path / "base" / "model.safetensors").write_bytes(content)
    require_pushable(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "safe")}))
    assert "are of other weights" in refused(adapter) or "'adapter_config.json' was changed" in refused(adapter)


@pytest.mark.parametrize(
    ("base", "named", "is_refused"),
    [
        ("me/base@" + "a" * 40, "me/base", False),
        ("me/safe@" + "a" * 40, "me/base", True),
        ("sha256:" + "1" * 64, "me/base", True),  # of a folder that stood in for it
        ("sha256:" + "1" * 64, "/of/another/machine", False),
    ],
)
def test_a_base_of_the_hub_is_told_by_its_name(tmp_path, base, named, is_refused):
    adapter = make_weights(tmp_path / "adapter", b"adapter", named)
    own = folder_weights(adapter, Digests())
    evaluation = make_evaluation_of(tmp_path / "e", adapter, weights=f"{base} + {own}", origins=[])
    with pytest.raises(Mismatch, match="names the base") if is_refused else nullcontext():
        verify(evaluation, adapter)


def test_every_file_of_an_evidence_that_others_go_on_from(tmp_path, merged):
    attach(merged, make_evaluation_of(tmp_path / "e", merged))
    paths = held(merged)
    assert f"{BEFORE}/{MANIFEST}" in paths
    assert f"evidence/inputs/input_1/{BEFORE}/{STATEMENT}" in paths
    assert f"evidence/evaluations/1/{MEASURED}" in paths
    for path in paths:
        content = (merged / path).read_bytes()
        for changed in (b"", content[:-1], content + b"\n", content.replace(b"0", b"1", 1), None):
            if changed == content:
                continue
            (merged / path).unlink() if changed is None else (merged / path).write_bytes(changed)
            with pytest.raises(EvidenceError) as found:
                verify(merged)
            assert path in str(found.value)
            (merged / path).write_bytes(content)
    verify(merged)


def forged(folder, path, change) -> str:
    """What is said of a document of the model before that is changed, with both chains made anew."""
    inner = folder / BEFORE
    rewrite(inner, path, change)
    rechain_all(folder)
    with pytest.raises(EvidenceError) as found:
        verify(folder)
    return str(found.value)


def rechain_all(folder) -> None:
    import hashlib

    from safe_sft.evidence.chain import Chain

    chain = Chain()
    for line in entries(folder):
        fields = {key: value for key, value in line.items() if key not in ("n", "event", "chain")}
        if "path" in fields and (folder / fields["path"]).is_file() and fields["path"] != "README.md":
            content = (folder / fields["path"]).read_bytes()
            fields |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        chain.add(line["event"], **fields)
    (folder / MANIFEST).write_text(chain.text())


def test_an_earlier_record_that_is_forged_and_chained_anew(repaired):
    assert f"'{BEFORE}/{MEASURED}' is of another statement" in forged(
        repaired, STATEMENT, lambda c: c["decisions"][0].update(limit=0.9)
    )


def test_the_chain_of_another_model(tmp_path, repaired):
    other = make_training(tmp_path / "other", step=0)
    (other / "config.json").write_text('{"model_type": "gemma"}')
    other = make_repair(make_weights(tmp_path / "third", b"third"))
    shutil.rmtree(repaired / BEFORE / "evidence")
    shutil.copytree(other / "evidence", repaired / BEFORE / "evidence")
    lines = [line for line in entries(repaired) if not str(line.get("path", "")).startswith(f"{BEFORE}/")]
    paths = sorted(str(path.relative_to(repaired)) for path in (repaired / BEFORE).rglob("*") if path.is_file())
    files = [{"event": "file", "stays": False, "path": path, "size": 0, "sha256": "0" * 64} for path in paths]
    first = next(i for i, line in enumerate(lines) if line["event"] == "file")
    rechain(repaired, [*lines[:first], *files, *lines[first:-1], {**lines[-1], "files": len(lines) + len(files) - 3}])
    rechain_all(repaired)
    with pytest.raises(Mismatch, match="is not the evidence that the chain goes on from: the head"):
        verify(repaired)
    lines = entries(repaired)
    lines[0]["head"] = verify(other).chain.sealed_head
    (repaired / MANIFEST).write_text("")
    rechain(repaired, lines)
    rechain_all(repaired)
    with pytest.raises(Mismatch, match="is the evidence of other weights than those of the input"):
        verify(repaired)


@pytest.mark.parametrize(
    ("role", "reason"),
    [("../x", "is no name"), ("a/b", "is no name"), ("", "is no name"), ("input_9", "holds no evidence")],
)
def test_inputs_that_are_none(repaired, role, reason):
    lines = entries(repaired)
    lines[0]["role"] = role
    rechain(repaired, lines)
    rechain_all(repaired)
    with pytest.raises(Mismatch, match=reason):
        verify(repaired)


@pytest.mark.parametrize(
    "content", [b"", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 100_000, b"{}" * 40_000, b"\xff", b"[]"]
)
@pytest.mark.parametrize("name", ["statement.json", "measured.json", "manifest.jsonl"])
def test_an_earlier_record_that_is_none(repaired, content, name):
    (repaired / BEFORE / "evidence" / name).write_bytes(content)
    rechain_all(repaired)
    with pytest.raises(Mismatch, match=name):
        verify(repaired)


def test_a_link_inside_an_earlier_record(tmp_path, repaired):
    path = repaired / BEFORE / MEASURED
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(Mismatch, match="is a link"):
        verify(repaired)
    with pytest.raises(EvidenceError, match="is a link that leads out of its folder"):
        make_merge(make_weights(tmp_path / "m", b"m"), repaired)


def test_a_chain_that_goes_back_too_far(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[_Examination.__module__], "_DEEPEST", 2)
    last = make_weights(tmp_path / "0", b"0")
    for number in range(1, 4):
        last = make_merge(make_weights(tmp_path / str(number), b"%d" % number), last)
    verify(last)  # and what would not be found to match is not written
    with pytest.raises(EvidenceError, match="goes back more than 2 models"):
        make_merge(make_weights(tmp_path / "4", b"4"), last)


def test_bounds_that_were_set_when_answers_were_there(tmp_path):
    with pytest.raises(Mismatch, match="when 7 answers were there already"):
        verify(make_repair(make_weights(tmp_path / "r"), answers=7))


def test_a_merge_that_claims_numbers(merged):
    rewrite(merged, MEASURED, lambda c: c.update(gate={"passed": True, "checks": []}))
    rechain_all(merged)
    assert "has numbers, and a merge measures nothing" in refused(merged)


def hub_cache(tmp_path, source: Path) -> Path:
    """The folder of a model in the Hub's cache: links to files that are named by their content."""
    home = tmp_path / "models--me--m"
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for number, path in enumerate(sorted(path for path in source.iterdir() if path.is_file())):
        shutil.copy(path, home / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def test_a_model_of_links(tmp_path):
    model = make_weights(tmp_path / "model", b"weights")
    evaluation = make_evaluation_of(tmp_path / "e", model)
    verify(evaluation, hub_cache(tmp_path, model))
    (tmp_path / "latest").symlink_to(model)  # the folder itself may be named by a link
    verify(evaluation, tmp_path / "latest")
    links = tmp_path / "links"
    links.mkdir()
    for path in model.iterdir():
        (links / path.name).symlink_to(path)
    with pytest.raises(Mismatch, match=r"'config\.json' is a link that leads out of .* Copy the file"):
        verify(evaluation, links)


def test_what_a_link_of_the_cache_leads_to_is_what_counts(tmp_path):
    model = make_weights(tmp_path / "model", b"weights")
    evaluation, snapshot = make_evaluation_of(tmp_path / "e", model), hub_cache(tmp_path, model)
    (snapshot / "model.safetensors").resolve().write_bytes(b"swapped")
    with pytest.raises(Mismatch, match="is not of the weights in"):
        verify(evaluation, snapshot)


def test_a_link_to_nothing_that_may_be_there_later(tmp_path):
    model = make_weights(tmp_path / "model", b"weights")
    evaluation = make_evaluation_of(tmp_path / "e", model)
    (model / "adapter_model.safetensors").symlink_to("later")
    with pytest.raises(Mismatch, match=r"where nothing is\. Restore the file"):
        verify(evaluation, model)


def test_an_index_or_code_that_is_added_after_the_measurement(tmp_path):
    for name in ("model.safetensors.index.json", "modeling_mine.py", "other.safetensors", "vocab.txt"):
        model = make_weights(tmp_path / name / "model", b"weights")
        evaluation = make_evaluation_of(tmp_path / name / "e", model)
        (model / name).write_text("{}")
        with pytest.raises(Mismatch, match="is not of the weights in"):
            verify(evaluation, model)
