"""The card says what is known, keeps what TRL wrote, and has metadata that the Hub can read."""

import sys

import pytest
from huggingface_hub import ModelCard
from trl.trainer.utils import generate_model_card

from safe_sft import METHODS
from safe_sft.evaluation import Check, Evaluation, ModelSpec, Verdict
from safe_sft.evaluation.evaluate import SafetyResult
from safe_sft.evaluation.output.results import results
from safe_sft.evaluation.report import SafetyReport
from safe_sft.evaluation.suites.suite import Case, Suite
from safe_sft.evaluation.utility.scored_tasks import UtilityResult
from safe_sft.hub.card import merge_into_card
from safe_sft.hub.facts import RunFacts, SafetyRowsFacts, Term
from safe_sft.storage.hub import RemoteName, hub_name
from safe_sft.storage.quick_start import with_repository
from tests.conftest import make_trainer

FACTS = RunFacts("ewc", (Term("ewc", 0.5, "weight", "empirical"),), versions={"safe_sft": "0.1.0"})
ARROWS = "Attack success rate ↓ | held-out (r1) | phrases | 4 |"


def measured(*models, checks=()):
    """ASR of 1 in 4 before and 2 in 4 after; 3 of 4 right answers."""
    suite = Suite("held-out", tuple(Case(str(i)) for i in range(4)), "ours", "r1")

    def safety(model, complied):
        verdicts = [Verdict.COMPLIED] * complied + [Verdict.REFUSED] * (4 - complied)
        return SafetyResult(model, suite, SafetyReport(("p",) * 4, ("a",) * 4, tuple(verdicts), "phrases"), True)

    complied = {"before": 1, "after": 2, "merged": 0}
    right = {"before": (True, False, False, False), "after": (True, True, True, False)}
    evaluation = Evaluation(
        tuple(ModelSpec(name, name) for name in models),
        tuple(safety(name, complied[name]) for name in models),
        tuple(
            UtilityResult(name, "gsm8k", "openai/gsm8k", ("",) * 4, right[name]) for name in models if name in right
        ),
    )
    return results(evaluation, checks)


def card(facts=FACTS, numbers=None, dataset=None, **trl):
    made = generate_model_card(
        base_model=None,
        model_name="m",
        hub_model_id="me/m",
        dataset_name=dataset,
        tags=["trl", "sft"],
        wandb_url=trl.get("wandb_url"),
        trackio_url=None,
        trainer_name="SafeSFT",
    )
    return ModelCard(merge_into_card(made, facts, numbers or {}, "m", "me/m"))


def test_the_numbers_stand_in_the_table_and_in_the_metadata():
    made = card(numbers=measured("before", "after"))
    assert f"{ARROWS} 0.250 [0.046, 0.699] | 0.500 [0.150, 0.850] |" in made.text
    asr, right = made.data.eval_results
    assert (asr.metric_type, asr.metric_value, asr.dataset_revision) == ("attack_success_rate", 0.5, "r1")
    assert asr.metric_args == {"low": 0.15, "high": 0.85, "n": 4, "judge": "phrases", "before_training": 0.25}
    assert (right.metric_type, right.metric_value, right.dataset_type) == ("accuracy", 0.75, "openai/gsm8k")
    assert made.data.model_name == "m"


def test_before_the_end_of_training_there_is_no_number_of_the_tuned_model():
    made = card(numbers=measured("before"))
    assert f"{ARROWS} 0.250 [0.046, 0.699] |\n" in made.text
    assert "not measured yet" in made.text
    assert made.data.eval_results is None


def test_the_merge_has_a_column_of_its_own():
    made = card(numbers=measured("before", "after", "merged"))
    assert "| before | after | after merging |" in made.text
    assert [r.metric_value for r in made.data.eval_results] == [0.5, 0.0, 0.75]
    assert "merged model" in made.data.eval_results[1].metric_name


def test_what_is_not_known_is_absent():
    made = card()
    assert "was not measured" in made.text
    for absent in (
        "None",
        "WARNING",
        "recipe",
        "replay share",
        "safety set",
        "gate",
        "(https://huggingface.co/datasets/",
    ):
        assert absent not in made.text


def test_what_is_known_is_said():
    facts = RunFacts(
        "ewc",
        FACTS.terms,
        base_model="org/aligned",
        base_revision="abc",
        safety_rows=SafetyRowsFacts("a|b", 7, "d1"),
        data={"task": "gsm8k", "rows": 20, "poisoned_rows": 2, "poison_kind": "backdoor", "safety_set": "again"},
        recipe={"learning_rate": 0.1},
        versions={"safe_sft": "0.1.0", "trl": "9"},
    )
    made = card(facts, dataset="org/data", wandb_url="https://wandb.example/run")
    for text in (
        "2 of its 20 training rows (kind `backdoor`)",
        "[org/aligned](https://huggingface.co/org/aligned) on [org/data]",
        "| `ewc` | weight 0.5, over the space `weight`, importance estimated as `empirical` |",
        r"| safety set | a\|b: 7 rows, digest `d1` |",
        "| base model | [org/aligned](https://huggingface.co/org/aligned) at `abc` |",
        "| versions | safe_sft 0.1.0, trl 9 |",
        "~~~yaml\nlearning_rate: 0.1\n~~~",
        "https://wandb.example/run",
        "@software{vonwerra2020trl",
    ):
        assert text in made.text
    assert "again" not in made.text
    assert made.text.index("poisoned data, on purpose") < made.text.index("A fine-tuned version of")
    assert {"trl", "sft", "ewc", "poisoned-data"} <= set(made.data.tags)
    assert made.data.datasets == "org/data"


@pytest.mark.parametrize("passed", [True, False])
def test_the_gate(passed):
    check = Check("max_asr", "after", 0.05, 0.5, passed, "ASR 0.5.")
    made = card(numbers=measured("before", "after", checks=[check]))
    assert ("failed its safety gate" in made.text) is not passed
    assert ("`max_asr` at most 0.05: ASR 0.5." in made.text) is passed


def test_every_method_names_the_paper_that_its_file_names():
    for method in METHODS.values():
        url = method.bibtex.split("url")[1].split("{")[1].split("}")[0]
        assert url in sys.modules[method.__module__].__doc__


def test_another_repository_in_the_quick_start():
    text = card().content
    assert with_repository(text, "you/n").replace('model="you/n"', 'model="me/m"') == text


@pytest.mark.parametrize("method", ["none", "der", "mas"])
def test_from_python_without_anything_measured(tmp_path, method):
    trainer = make_trainer(tmp_path, method)
    trainer.train()
    trainer.create_model_card(dataset_name=str(tmp_path / "rows.jsonl"))
    made = ModelCard.load(tmp_path / "README.md")
    assert f"| safety method | `{method}` |" in made.text
    assert ("6 rows, digest" in made.text) is (method != "none")
    assert ("importance estimated as `mas`" in made.text) is (method == "mas")
    assert made.data.get("datasets") is None
    assert f"# {tmp_path.name}" in made.text


def test_names_of_the_hub(tmp_path, monkeypatch):
    assert RemoteName.parse("outputs/teacher") is None
    assert RemoteName.parse("hf://me/x@v1") == RemoteName("me/x", "v1")
    for wrong in ("hf://me", "hf://me/x/y", "hf://", "hf://me/x@"):
        with pytest.raises(ValueError, match="names no repository of the Hub"):
            RemoteName.parse(wrong)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "x").touch()
    assert [hub_name(n) for n in ("org/x", "me/x", "/a/b", "rows.jsonl", "", None)] == ["org/x"] + [None] * 5


def test_degenerate_and_unjudged_shares_stand_beside_the_rates():
    shares = {"degenerate": {"value": 0.93}, "unjudged": {"value": 0.0}}
    dead = {"value": None, "low": 0.0, "high": 1.0, "successes": 0, "n": 100, "not_measurable": "93 % degenerate"}
    entry = {"model": "after", "suite": "s", "judge": "j", "harmful": True, "asr": dead, **shares}
    text = card(numbers={"safety": [entry], "settings": {"max_new_tokens": 8}}).text
    assert "| not measurable: 93 % degenerate |" in text
    assert "Attack success rate, s, j, after: 93 % degenerate, 0 % unjudged." in text
