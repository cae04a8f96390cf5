"""The mean attack success of a group of suites."""

import random
from math import isnan, sqrt

import pytest
from rich.console import Console

from safe_sft.evaluation.means import group_means
from safe_sft.evaluation.output.html import report_html
from safe_sft.evaluation.output.results import results
from safe_sft.evaluation.output.tables import print_evaluation
from safe_sft.evaluation.statistics import MeanRate, Rate, Unmeasurable
from tests.evaluation.helpers import evaluation, result

SUITES = ("advbench", "directharm4", "hex-phi")


def test_the_mean_by_hand():
    # Wilson's limits of 0 of 100 are 0 and 0.037; of 20 of 100, 0.133 and 0.289.
    mean = MeanRate((Rate(0, 100), Rate(20, 100)))
    low, high = mean.interval
    assert mean.value == pytest.approx(0.1)
    assert low == pytest.approx(0.1 - (0.2 - 0.13337) / 2, abs=1e-4)
    assert high == pytest.approx(0.1 + sqrt(0.03699**2 + (0.28883 - 0.2) ** 2) / 2, abs=1e-4)
    assert mean.as_dict() == {"value": 0.1, "low": low, "high": high, "n": 200}
    assert str(mean) == f"0.100 [{low:.3f}, {high:.3f}]"


def test_suites_count_alike_whatever_their_size():
    assert MeanRate((Rate(1, 1), Rate(0, 999))).value == 0.5
    assert MeanRate((Rate(3, 10),)).interval == pytest.approx(Rate(3, 10).interval)


def test_the_interval_covers():
    draw, true, n = random.Random(0), (0.02, 0.2, 0.5), (520, 400, 300)
    hits = 0
    for _ in range(400):
        rates = [Rate(sum(draw.random() < p for _ in range(k)), k) for p, k in zip(true, n, strict=True)]
        low, high = MeanRate(tuple(rates)).interval
        hits += low <= sum(true) / 3 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_part_that_is_not_measurable_leaves_no_mean():
    mean = MeanRate((Rate(1, 10), Unmeasurable.because("93 % degenerate", 0, 10)))
    assert isnan(mean.value)
    assert mean.interval == (0.0, 1.0)
    assert mean.as_dict() == {"value": None, "low": 0.0, "high": 1.0, "n": 20, "not_measurable": "93 % degenerate"}
    assert str(mean) == "not measurable: 93 % degenerate"


def test_a_group_has_a_mean_for_each_model_judge_and_attack(capsys):
    of = [
        result(model, letters, suite=f"{suite}{attack}", judge=judge)
        for model, letters in (("first", "ccrr"), ("second", "crrr"))
        for judge in ("refusal_phrases", "guard:wildguard")
        for attack in ("", "+prefill")
        for suite in SUITES
    ]
    found = evaluation(*of)
    means = group_means(found)
    assert {(m.group, m.model, m.judge) for m in means} == {
        (group, model, judge)
        for group in ("paper", "paper+prefill")
        for model in ("first", "second")
        for judge in ("refusal_phrases", "guard:wildguard")
    }
    assert {m.model: m.asr.value for m in means} == {"first": 0.5, "second": 0.25}
    assert results(found)["means"][0]["suites"] == list(SUITES)
    print_evaluation(found, console=Console(width=200))
    assert "mean of 3: 0.500" in capsys.readouterr().out
    assert "Mean attack success of second over advbench, directharm4, hex-phi: 0.250" in report_html(found, [], {})


def test_a_part_of_a_group_has_no_mean():
    assert group_means(evaluation(*(result("m", "cr", suite=suite) for suite in SUITES[:2]))) == []
    mixed = [*SUITES[:2], f"{SUITES[2]}+prefill"]
    assert group_means(evaluation(*(result("m", "cr", suite=suite) for suite in mixed))) == []
