"""A model that says nothing is not safe: no number of it is shown, written, selected or let past a gate."""

import io
import json

import pytest
import torch
from rich.console import Console

from safe_sft.evaluation import Bounds, Rate, SafetyReport, Verdict, check_gate, measure_asr, print_evaluation
from safe_sft.evaluation.output.files import write_evaluation
from safe_sft.evaluation.output.results import results
from safe_sft.hub.results import eval_results, result_rows
from safe_sft.merging.sweep import Scores, Sweep, SweepPoint
from tests.conftest import make_model

from .helpers import evaluation, result, task

DEAD, CUT, HALF = "d" * 93 + "r" * 7, "u" * 60 + "r" * 40, "d" * 50 + "r" * 50


def report(letters):
    return result("m", letters).report


def test_the_rate_is_no_number():
    rate = report(DEAD).asr
    assert (str(rate), rate.interval) == ("not measurable: 93 % degenerate", (0.0, 1.0))
    assert not rate.value <= 1
    assert rate.as_dict()["value"] is None
    assert str(report(CUT).asr) == "not measurable: 60 % unjudged"
    assert str(report("d" * 30 + "u" * 30 + "r" * 40).asr) == "not measurable: 30 % degenerate, 30 % unjudged"
    assert (report(HALF).asr.not_measurable, report(HALF).asr) == (None, (0, 100))
    assert report("d" * 3 + "c" * 997).beside == "0.3 % degenerate, 0 % unjudged"


def test_a_dead_model_is_refused(tokenizer):
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        measure_asr(model, tokenizer, ["p"], max_new_tokens=2)


@pytest.mark.parametrize("letters", [DEAD, CUT])
@pytest.mark.parametrize("bound", ["max_asr", "max_asr_increase", "max_utility_drop"])
def test_no_bound_holds(letters, bound):
    tried = evaluation(
        result("a", "r" * 100), result("b", letters), utility=(task("a", "+-" * 400), task("b", "+-" * 400))
    )
    failed = [check for check in check_gate(tried, Bounds(**{bound: 1.0})) if not check.passed]
    assert any("not measurable" in check.message for check in failed)
    if bound != "max_utility_drop":
        assert bound in {check.bound for check in failed}


def test_a_first_model_that_is_dead_is_no_measure():
    tried = evaluation(result("a", DEAD), result("b", "r" * 100))
    assert tried.against_first(tried.safety[1]) is None
    (check,) = [c for c in check_gate(tried, Bounds(max_asr_increase=1.0)) if not c.passed]
    assert "that of a not measurable: 93 % degenerate" in check.message


def test_tables_files_plots_and_the_report_say_so(tmp_path):
    tried = evaluation(
        result("a", "r" * 99 + "d"),
        result("b", DEAD),
        result("b", DEAD, harmful=False, suite="h"),
        result("a", "r" * 100, harmful=False, suite="h"),
    )
    console = Console(width=300, record=True, file=io.StringIO())
    print_evaluation(tried, by_category=True, console=console)
    assert "not measurable: 93 % degenerate" in console.export_text()
    write_evaluation(tried, tmp_path)
    for name in ("report.html", "asr.svg", "over_refusal.svg", "results.json"):
        assert "93 % degenerate" in (tmp_path / name).read_text(), name
    assert "1 % degenerate" in (tmp_path / "asr.svg").read_text()
    assert "NaN" not in (tmp_path / "results.json").read_text()


def test_nothing_of_it_goes_to_the_hub():
    measured = json.loads(json.dumps(results(evaluation(result("before", "r" * 100), result("after", DEAD)))))
    assert eval_results(measured) == []
    (row,) = result_rows(measured)
    assert row.rates["after"]["not_measurable"] == "93 % degenerate"
    (good,) = eval_results(results(evaluation(result("before", DEAD), result("after", "rrrcrrrrrd"))))
    assert (good.metric_value, good.metric_args["degenerate"], good.metric_args.get("unjudged")) == (0.1, 0.1, None)
    assert "before_training" not in good.metric_args


def test_a_sweep_selects_none_that_is_dead(tmp_path):
    dead, alive = SafetyReport(("p",) * 4, ("",) * 4, (Verdict.DEGENERATE,) * 4, "j"), report("rrrc")
    points = [
        SweepPoint(w, Scores(r.asr, r.degenerate, Rate(9, 9), r.unjudged)) for w, r in ((0.5, alive), (1.0, dead))
    ]
    sweep = Sweep(tuple(points), 0.3)
    assert sweep.selected is points[0]
    assert Sweep(tuple(points[1:]), 1.0).selected is None
    assert "1" in sweep.unmeasured
    sweep.save(tmp_path, {})
    assert json.loads((tmp_path / "sweep.json").read_text())["points"][1]["asr"]["value"] is None
