"""The numbers in the form that the Hub shows: only of its own data sets, as `huggingface_hub` reads them."""

import pytest
import yaml
from huggingface_hub import EvalResultEntry, parse_eval_result_entries

from safe_sft.hub.eval_results import check_eval_results, result_entries, write_eval_results
from safe_sft.storage.names import left_out

COMMIT = "886acc352a31533ffbcf4ef22c744658688086fc"
RATE = {"value": 0.25, "low": 0.11, "high": 0.46, "successes": 5, "n": 20}


def measured(**changes):
    about = {"model": "after", "judge": "refusal_phrases", "revision": COMMIT, **changes}
    jailbreakbench = {"source": "JailbreakBench/JBB-Behaviors", **about}
    return {
        "settings": {"max_new_tokens": 64},
        "safety": [
            {"suite": "jailbreakbench-harmful", "asr": RATE, **jailbreakbench},
            {"suite": "jailbreakbench-harmless", "over_refusal": RATE, **jailbreakbench},
            {"suite": "builtin-harmful", "source": "safe_sft prompts 'harmful_heldout'", "asr": RATE, **about},
            {"suite": "mine", "source": "data/prompts.jsonl", "asr": RATE, **about},
            {"suite": "harmbench", "source": "https://raw.githubusercontent.com/a/b/c.csv", "asr": RATE, **about},
        ],
        "utility": [
            {"model": "after", "task": "gsm8k", "source": "openai/gsm8k", "right": {**RATE, "value": 1 / 3}},
            {"model": "before", "task": "gsm8k", "source": "openai/gsm8k", "right": RATE},
        ],
    }


def test_an_entry_for_each_number_of_a_data_set_of_the_hub():
    attack, refusal, right = result_entries(measured(), "after")
    assert attack == EvalResultEntry(
        dataset_id="JailbreakBench/JBB-Behaviors",
        task_id="jailbreakbench-harmful",
        value=0.25,
        dataset_revision=COMMIT,
        notes="attack success rate, lower is better; 95 % interval 0.110 to 0.460, n=20; judge refusal_phrases; "
        "greedy, at most 64 new tokens; measured with safe_sft",
    )
    assert refusal.task_id == "jailbreakbench-harmless"
    assert (right.dataset_id, right.task_id, right.value) == ("openai/gsm8k", "gsm8k", 0.333333)
    assert right.dataset_revision == "740312add88f781978c0658806c59bc2815b9866"


@pytest.mark.parametrize("revision", [None, "main", "not pinned", "sha256:1234"])
def test_only_a_commit_is_a_revision(revision):
    assert result_entries(measured(revision=revision), "after")[0].dataset_revision is None


def test_what_is_not_measurable_is_no_number():
    content = measured()
    content["safety"][0]["asr"] = {**RATE, "value": None}
    content["safety"][1]["over_refusal"] = {**RATE, "n": 0}
    assert [entry.task_id for entry in result_entries(content, "after")] == ["gsm8k"]


def test_the_files_are_read_by_the_hubs_own_reader(tmp_path):
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "safe-sft-old.yaml").write_text("of an earlier run")
    (tmp_path / ".eval_results" / "theirs.yaml").write_text("- dataset: {id: a/b, task_id: c}\n  value: 1\n")
    files = write_eval_results(tmp_path, measured(), "after")
    names = ["safe-sft-jailbreakbench-jbb-behaviors.yaml", "safe-sft-openai-gsm8k.yaml"]
    assert [path.name for path in files] == names
    assert sorted(path.name for path in (tmp_path / ".eval_results").iterdir()) == [*names, "theirs.yaml"]
    read = [entry for path in files for entry in parse_eval_result_entries(yaml.safe_load(path.read_text()))]
    assert read == result_entries(measured(), "after")
    assert set(yaml.safe_load(files[0].read_text())[0]) == {"dataset", "value", "notes"}
    before = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in write_eval_results(tmp_path, measured(), "after")] == before
    check_eval_results(tmp_path)


@pytest.mark.parametrize("text", ["a: 1", "- 3", "- dataset: {id: a/b}\n  value: 1\n", "- {value: 1}", "[", "- a: *a"])
def test_results_that_the_hub_cannot_read_are_an_error(tmp_path, text):
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"x\.yaml' does not hold results as the Hub reads them"):
        check_eval_results(tmp_path)


def test_they_are_uploaded_and_other_hidden_files_are_not():
    assert not left_out(".eval_results/x.yaml")
    assert left_out(".cache/x")
