"""Tables, JSON, answers, plots and the page, from verdicts."""

import io
import json
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from safe_sft.cli.evaluate import main
from safe_sft.evaluation import Settings
from safe_sft.evaluation.answering import AnswerStore
from safe_sft.evaluation.asked import Asked
from safe_sft.evaluation.gate import Bounds, check_gate
from safe_sft.evaluation.output.evidence import EvaluationEvidence
from safe_sft.evaluation.output.files import write_evaluation
from safe_sft.evaluation.output.html import report_html
from safe_sft.evaluation.output.plots import plots
from safe_sft.evaluation.output.results import answer_lines, results
from safe_sft.evaluation.output.tables import print_evaluation, print_gate
from safe_sft.storage.terminal import plain
from tests.evaluation.helpers import evaluation, result, task


@pytest.fixture(scope="module")
def measured():
    return evaluation(
        result("aligned", "rrrrcr"),
        result("sft", "ccrrcd"),
        result("aligned", "rrrrcr", judge="guard:wildguard"),
        result("sft", "ccccrd", judge="guard:wildguard"),
        result("aligned", "crcccc", harmful=False, suite="h"),
        result("sft", "cccccc", harmful=False, suite="h"),
        utility=[task("aligned", "++--"), task("sft", "+++-")],
        unavailable=("Suite 'hex-phi' could not be loaded",),
    )


def test_results(measured):
    content = json.loads(json.dumps(results(measured, check_gate(measured, Bounds(max_asr=0.9)))))
    sft = content["safety"][1]
    assert (sft["model"], sft["asr"]["successes"], sft["asr"]["n"]) == ("sft", 3, 6)
    assert sft["against_first"]["difference"] == pytest.approx(2 / 6)
    assert sft["against_first"]["mcnemar_p"] == 0.5
    assert sft["categories"]["x"]["asr"]["successes"] == 2
    assert content["safety"][4]["over_refusal"]["successes"] == 1
    assert "asr" not in content["safety"][4]
    # ccrrcd against ccccrd, without the answer that says nothing: two of five
    assert (content["agreement"][1]["agreement"]["successes"], content["agreement"][1]["agreement"]["n"]) == (2, 5)
    assert content["agreement"][1]["disagreements"] == [2, 3, 4]
    assert content["gate"]["passed"] is False
    assert (content["model"], content["asr"]["successes"]) == ("path/sft", 3)


def test_a_guard_that_cannot_tell_refusals_measures_no_over_refusal():
    content = results(evaluation(result("m", "sss", harmful=False, judge="guard:shieldgemma")))
    assert not {"asr", "over_refusal", "refusal"} & set(content["safety"][0])


def test_answers_hold_every_verdict(measured):
    lines = [json.loads(line) for line in answer_lines(measured)]
    assert len(lines) == 2 * 6 + 2 * 6 + 2 * 4
    row = next(line for line in lines if line["model"] == "sft" and line["prompt"] == "request 2")
    assert row["verdicts"] == {"refusal_phrases": "refused", "guard:wildguard": "complied"}
    assert row["answer"] == "answer 2 of sft"


def test_tables(measured):
    screen = io.StringIO()
    console = Console(file=screen, width=220)
    print_evaluation(measured, by_category=True, console=console)
    print_gate(check_gate(measured, Bounds(max_asr=0.5)), console)
    text = screen.getvalue()
    for expected in ("ASR [95 % interval]", "0.500 [0.188, 0.812]", "minus aligned", "McNemar p", "hex-phi", "kappa"):
        assert expected in text
    assert "FAILED max_asr (sft, s, refusal_phrases)" in text
    passing = io.StringIO()
    print_gate(check_gate(evaluation(result("m", "r" * 99)), Bounds(max_asr=0.1)), Console(file=passing))
    assert "PASSED all 2 checks" in passing.getvalue()


def test_plots_show_what_was_measured(measured):
    drawn = plots(measured)
    assert set(drawn) == {"asr", "over_refusal", "utility"}
    assert "50.0%" in drawn["asr"]
    assert set(plots(evaluation(result("m", "rr")))) == {"asr"}


def test_the_page_needs_no_other_file_and_hides_examples(measured):
    page = report_html(measured, check_gate(measured, Bounds(max_asr=0.5)), plots(measured))
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "Content warning" in page
    before, after = page.split('<details class="warning"')
    assert "answer 0 of sft" not in before
    assert "answer 0 of sft" in after
    assert "✗ Failed" in page
    assert "sft complied with 3 of 6 harmful requests of s: 50.0%" in page


def test_the_page_escapes_what_a_model_said():
    evil = result("<b>m</b>", "c")
    object.__setattr__(evil.report, "answers", ("<script>alert(1)</script>",))
    page = report_html(evaluation(evil), [], {})
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>m</b>" not in page


def test_everything_is_written(measured, tmp_path):
    write_evaluation(measured, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("answers.jsonl", "results.json", "report.html"),
        *("asr.svg", "over_refusal.svg", "utility.svg"),
    }


@pytest.mark.parametrize("name", [r"$\frac{a}{b$", "_hidden", "[bold]b[/bold]", "a\x1b[31m\x00", "<b>&"])
def test_names_are_shown_as_they_are(tmp_path, name):
    measured = evaluation(result(name, "cr" * 20))
    write_evaluation(measured, tmp_path)
    picture = (tmp_path / "asr.svg").read_text()
    texts = [text.strip() for element in ElementTree.fromstring(picture).iter() for text in [element.text or ""]]
    assert plain(name) in texts
    screen = io.StringIO()
    print_evaluation(measured, console=Console(file=screen, width=220))
    assert plain(name) in screen.getvalue()
    assert "<b>&" not in (tmp_path / "report.html").read_text()


def test_the_report_is_there_though_it_cannot_be_printed(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("safe_sft.evaluation.output.tables.print_evaluation", fails)
    evidence = EvaluationEvidence(tmp_path, [], Bounds(), Asked((), (), ()), [], Settings())
    evidence.begin(AnswerStore(tmp_path / "cache"))
    made = evaluation(result("m", "cr")), evidence
    monkeypatch.setattr("safe_sft.cli.evaluate._evaluate", lambda args, bounds: made)
    with pytest.raises(SystemExit):
        main(["--model", "m", "--output", str(tmp_path)])
    assert (tmp_path / "report.html").is_file()
