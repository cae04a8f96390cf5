"""Utility: what counts as right, tasks from files, and metrics as modules of `evaluate`."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import evaluate
import pytest

from safe_sft.evaluation.metrics import metric_path
from safe_sft.evaluation.suites.suite import SuiteUnavailable
from safe_sft.evaluation.utility.code import extract_program, run_tests
from safe_sft.evaluation.utility.harness import run_harness
from safe_sft.evaluation.utility.scored_tasks import utility_task
from safe_sft.evaluation.utility.scoring import final_number, pass_at_k, same_final_number, sentiment
from tests.conftest import make_model
from tests.evaluation.utility import harness_worker
from tests.evaluation.utility.harness_worker import stand_in_for_the_harness

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("6 * 3 = <<6*3=18>>18\n#### 18", "18"),
        ("#### 1,234", "1234"),
        ("#### $5.50", "5.50"),
        ("#### -7", "-7"),
        ("I first thought #### 3, but it is\n#### 4", "4"),
        ("Thus \\boxed{42} apples, in 2 days.", "42"),
        ("The answer is **18**. It took 3 steps.", "18"),
        ("The final answer: $ 70,000.00", "70000.00"),
        ("He has 3 + 4 = 7 apples.", "7"),
        ("It costs 12.", "12"),
        ("none", None),
    ],
)
def test_final_numbers(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


def test_equal_numbers():
    assert same_final_number("so $18.00.", "blah #### 18")
    assert not same_final_number("none", "none")


def test_sentiments():
    assert [sentiment(t) for t in ("Positive.", "It is negative, not positive", "unpositive", "")] == [
        1,
        0,
        None,
        None,
    ]


def test_pass_at_k_by_hand():
    assert pass_at_k(2, 1, 1) == 0.5
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)
    assert pass_at_k(3, 0, 3) == 0.0
    with pytest.raises(ValueError, match="at least 2 samples"):
        pass_at_k(1, 1, 2)


def test_tasks_from_files(tmp_path):
    (tmp_path / "math.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "#### 2"}))
    task = utility_task(f"gsm8k:{tmp_path}/math.jsonl")
    assert task.cases[0].prompt.startswith("1+1?\n\nThink step by step")
    assert task.judge(["It is 2."]) == [True]
    (tmp_path / "films.jsonl").write_text("\n".join(json.dumps({"sentence": f"s{i}", "label": 1}) for i in range(6)))
    task = utility_task(f"sst2:{tmp_path}/films.jsonl", limit=2)
    assert [case.prompt[-2:] for case in task.cases] == ["s0", "s3"]
    assert task.judge(["positive", "?"]) == [True, False]
    with pytest.raises(ValueError, match="It needs `question` and `answer`"):
        utility_task(f"gsm8k:{tmp_path}/films.jsonl")


def test_a_task_that_cannot_be_reached(monkeypatch):
    import datasets

    def load_dataset(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(SuiteUnavailable, match=r"'gsm8k' could not be loaded.*--utility gsm8k:FILE"):
        utility_task("gsm8k")


def test_programs_in_answers():
    assert extract_program("p", "Here:\n```python\nx = 1\n```\nDone.") == "x = 1\n"
    assert extract_program("p", "```\nx = 1") == "x = 1"
    assert extract_program("p", "x = 1") == "x = 1"
    begun = "def f(x):\n"
    assert extract_program(begun, "    return x", "f") == "def f(x):\n    return x"
    assert extract_program(begun, "```python\ndef f(x):\n    return x\n```", "f") == "def f(x):\n    return x\n"


def test_code_tasks_run_only_when_allowed(tmp_path):
    rows = [
        {"prompt": "Write add.", "test": "assert add(1, 2) == 3", "entry_point": None},
        {"prompt": "def f(x):\n", "test": "def check(g):\n    assert g(2) == 4", "entry_point": "f"},
    ]
    (tmp_path / "code.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(PermissionError, match="--allow_code_execution"):
        utility_task(f"code:{tmp_path}/code.jsonl")
    task = utility_task(f"code:{tmp_path}/code.jsonl", allow_code_execution=True)
    right = "```python\ndef add(a, b):\n    return a + b\n```"
    assert task.judge([right, "    return x * x"]) == [True, True]
    assert task.judge(["```python\nraise SystemExit(0)\n```", "    return x"]) == [False, False]
    with pytest.raises(PermissionError, match="nobody has allowed it"):
        run_tests([("", "")], allow_code_execution=False)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (
            "gsm8k_exact_match",
            {"predictions": ["4", "5"], "references": ["#### 4", "#### 6"]},
            {"exact_match": 0.5},
        ),
        ("sst2_accuracy", {"predictions": ["Positive", "?"], "references": [1, 0]}, {"accuracy": 0.5}),
        (
            "code_pass_at_k",
            {
                "predictions": [["x = 1", "x = 2"], ["y = 1", "y = 1"]],
                "references": ["assert x == 1", "assert y == 1"],
                "k": [1, 2],
                "allow_code_execution": True,
            },
            {"pass@1": 0.75, "pass@2": 1.0},
        ),
    ],
)
def test_metrics_load_offline(monkeypatch, tmp_path, name, arguments, expected):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    metric = evaluate.load(metric_path(name), cache_dir=str(tmp_path))
    assert metric.compute(**arguments) == pytest.approx(expected)


def test_the_code_metric_asks_first(tmp_path):
    metric = evaluate.load(metric_path("code_pass_at_k"), cache_dir=str(tmp_path))
    with pytest.raises(PermissionError, match="allow_code_execution=True"):
        metric.compute(predictions=[["x = 1"]], references=["assert x == 1"])
    with pytest.raises(ValueError, match="'bleu' is unknown"):
        metric_path("bleu")


@pytest.fixture
def harness(monkeypatch):
    modules = stand_in_for_the_harness()
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return modules[0]


def test_a_task_of_the_harness(harness, tokenizer):
    task = utility_task("lm_eval:arc_easy", limit=3)
    answers, right = run_harness(make_model(), tokenizer, task, 8)
    assert (answers, right) == (("['0 by 0']", "['1 by 0']", "['2 by 0']"), (True, True, False))
    assert harness.called == (8, ["arc_easy"], 3, True)
    for row in harness.rows:
        row["perplexity"] = row.pop("acc")
    with pytest.raises(ValueError, match="says right or wrong of no row"):
        run_harness(make_model(), tokenizer, task, 8)


def test_a_task_that_the_harness_cannot_load_is_known_before_any_model_is(harness):
    with pytest.raises(ValueError, match="has no task 'arc_hard'"):
        utility_task("lm_eval:arc_hard")
    with pytest.raises(SuiteUnavailable, match=r"'lm_eval:offline' could not be loaded \(ConnectionError: no route\)"):
        utility_task("lm_eval:offline")


def test_several_processes_agree_on_a_task_of_the_harness(tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", harness_worker.__name__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run([sys.executable, *command, str(tmp_path)], check=True, cwd=ROOT, env=environment)
    answers = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert answers == [[["['0 by 0']", "['1 by 0']", "['2 by 0']"], [True, True, False]]] * 2


def test_the_harness_is_optional():
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'safe_sft\[harness\]'"):
        utility_task("lm_eval:arc_easy")
