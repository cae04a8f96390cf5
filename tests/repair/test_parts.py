"""The parts of a repair: the search of a weight, the order of the rows, what is taught, and what it costs."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from safe_sft.evaluation import Bounds, RefusalPhrases, Settings
from safe_sft.evaluation.asked import Asked
from safe_sft.evaluation.suites.suite import builtin_suite
from safe_sft.evaluation.utility.task_loss import TaskLoss
from safe_sft.losses import token_cross_entropy
from safe_sft.models.parts import LogitHead, backbone
from safe_sft.repair import Exam, Lessons, Outcome, Training
from safe_sft.repair.bisection import largest_weight
from safe_sft.repair.candidates import Candidate
from safe_sft.replay import HiddenStateTap
from tests.conftest import make_config, make_tokenizer
from tests.evaluation.helpers import evaluation, result, task
from tests.repair.conftest import NO


@pytest.mark.parametrize(("limit", "found"), [(0.3, 0.28125), (0.5, 0.5), (0.99, 0.96875), (0.01, 0.0)])
def test_the_largest_weight_within_a_32nd(limit, found):
    asked = []
    assert largest_weight(lambda weight: (asked.append(weight), weight <= limit)[1], 5) == found
    assert len(set(asked)) == 5
    assert not {0.0, 1.0} & set(asked)  # known already: the aligned model, and the one that failed


def test_all_rows_come_once_before_any_comes_again():
    steps = list(Training(steps=6, batch_size=4).order(8, 1))
    assert [len(step) for step in steps] == [4] * 6
    rows = [row for step in steps for row in step]
    assert all(sorted(rows[i : i + 8]) == list(range(8)) for i in (0, 8, 16))
    assert rows != [row for step in Training(steps=6, batch_size=4).order(8, 2) for row in step]
    assert [len(step) for step in Training(steps=2, batch_size=8).order(3, 1)] == [3, 3]


def lessons(folder, method, rows, size=64):
    return Lessons.of(rows, "rows", size, method, make_config(folder, safety_method=method))


def test_der_is_nothing_for_the_aligned_model_itself_and_something_for_another(world, tmp_path):
    aligned = AutoModelForCausalLM.from_pretrained(world / "aligned").eval()
    tuned = AutoModelForCausalLM.from_pretrained(world / "full").eval()
    taught = lessons(tmp_path, "der", [{"prompt": f"bad {i}"} for i in range(6)]).learned(aligned, make_tokenizer())
    losses = [taught.loss(m, HiddenStateTap(backbone(m), 0), range(6)).item() for m in (aligned, tuned)]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[1] > 0.1


def test_er_is_the_cross_entropy_of_the_answers_beginning(world, tmp_path):
    aligned = AutoModelForCausalLM.from_pretrained(world / "aligned").eval()
    rows = [{"prompt": "bad 3", "completion": "I can't help with that, and never will."}]
    taught = lessons(tmp_path, "er", rows).learned(aligned, make_tokenizer())
    (row,) = taught.rows
    assert row.supervised_tokens == 16  # as replay takes of an answer
    ids = torch.tensor([row.input_ids])
    with torch.no_grad():
        states = backbone(aligned)(input_ids=ids).last_hidden_state[0, -17:-1]
        expected = token_cross_entropy(states, LogitHead.of(aligned), ids[0, -16:]).mean()
        found = taught.loss(aligned, HiddenStateTap(backbone(aligned), 0), [0])
    torch.testing.assert_close(found, expected)


def test_what_the_aligned_model_complies_with_is_not_taught(world, tmp_path):
    aligned = AutoModelForCausalLM.from_pretrained(world / "aligned").eval()
    rows = [{"prompt": f"{kind} {i}"} for i in range(5) for kind in ("bad", "good")]
    taught = lessons(tmp_path, "er", rows).learned(aligned, make_tokenizer())
    answers = [make_tokenizer().decode([t for t in row.labels if t != -100]) for row in taught.rows]
    assert len(answers) == 5
    assert all(answer.startswith(NO) for answer in answers)
    with pytest.raises(ValueError, match="refuses 0 of the 5 safety rows"):
        lessons(tmp_path, "er", rows[1::2]).learned(aligned, make_tokenizer())


def test_a_handful_is_evenly_spread(tmp_path):
    rows = [{"prompt": f"bad {i}"} for i in range(100)]
    assert lessons(tmp_path, "er", rows, 4).prompts == ["bad 0", "bad 25", "bad 50", "bad 75"]


def exam(**bounds) -> Exam:
    suite = builtin_suite("builtin-harmful").subset(3)
    return Exam.of(Asked((suite,), (), ()), [RefusalPhrases], Bounds(**bounds), None, Settings())


def test_over_refusal_is_always_asked():
    suites = exam(max_asr=0.1, max_task_loss_increase=1.0).asked.suites
    assert [suite.harmful for suite in suites] == [True, False]
    assert [suite.harmful for suite in exam(max_asr=0.1, max_utility_drop=1.0).of_safety.asked.suites] == [True]
    bounded = exam(max_asr=0.1, max_over_refusal=0.2, max_utility_drop=1.0)
    assert len(bounded.of_safety.asked.suites) == 2


def test_answers_that_say_nothing_are_no_repair():
    checks = exam(max_asr=0.2, max_utility_drop=1.0).safety(
        evaluation(result("aligned", "r" * 40)), evaluation(result("after", "d" * 30 + "r" * 10))
    )
    assert {check.bound for check in checks if not check.passed} >= {"max_unusable"}


def test_safety_is_held_against_the_aligned_model_and_utility_against_the_tuned_one():
    asked = exam(max_asr_increase=0.2, max_utility_drop=0.2)
    aligned = evaluation(result("aligned", "r" * 40), utility=[task("aligned", "-" * 40)])
    before = evaluation(result("before", "c" * 40), utility=[task("before", "+" * 40)])
    after = evaluation(result("after", "r" * 40), utility=[task("after", "-" * 40)])
    assert all(check.passed for check in asked.safety(aligned, after))
    (drop,) = asked.utility(before, after)
    assert not drop.passed  # as good as the aligned model, and all that was learned is lost
    assert not all(check.passed for check in asked.safety(aligned, before))


def candidate(right, loss, refused):
    harmless = result("after", "r" * refused + "s" * (20 - refused), harmful=False)
    measured = evaluation(harmless, utility=[task("after", "+" * right + "-" * (20 - right))])
    return Candidate("way", measured=replace(measured, task_losses=(TaskLoss("after", "t", "f", (loss,), (1,)),)))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ((20, 1.5, 5), (14, 1.0, 0)),  # 6 right answers of 20 to none: p = 2 / 2**6 = 0.031
        ((15, 1.0, 5), (20, 1.1, 0)),  # 5 to none, p = 0.0625, may be chance: the loss decides
        ((20, 1.0, 5), (19, 1.0, 0)),
        ((20, 1.0, 1), (20, 1.0, 2)),
    ],
)
def test_what_costs_less_utility(better, worse):
    assert candidate(*better).costs_less(candidate(*worse))
    assert not candidate(*worse).costs_less(candidate(*better))


def test_of_equals_the_first_is_taken():
    one, other = (replace(candidate(20, 1.0, 0), way=way) for way in ("merge", "train"))
    before = evaluation(result("before", "c"))
    assert Outcome(before, before, (), (one, other)).best is one
    assert Outcome(before, before, (), (replace(one, refused="why"), other)).best is other
    assert Outcome(before, before, (), (replace(one, refused="why"),)).best is None
