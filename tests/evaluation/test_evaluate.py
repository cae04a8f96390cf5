"""One model in memory answers, and its results are found again."""

from safe_sft.evaluation import Case, RefusalPhrases, Settings, Suite
from safe_sft.evaluation.evaluate import Respondent, SafetyResult
from safe_sft.evaluation.utility.scored_tasks import scored_task
from tests.conftest import make_model

from .helpers import evaluation, result


def test_a_respondent_answers_suites_and_tasks(tokenizer):
    asked = Respondent("m", make_model(), tokenizer, Settings(max_new_tokens=2, batch_size=2))
    suite = Suite("s", (Case("a"), Case("b"), Case("c")), "", "")
    answers = asked.answers(suite)
    judged = SafetyResult.judged("m", suite, RefusalPhrases(), answers)
    assert judged.report.answers == tuple(answer.text for answer in answers)
    assert (judged.key, judged.tells_refusals) == (("m", "s", "refusal_phrases"), True)
    row = {"prompt": [{"role": "user", "content": "1 + 1?"}], "completion": [{"role": "assistant", "content": "2"}]}
    done = asked.result(scored_task("gsm8k", [row], "here"))
    assert (done.model, done.task, done.source, done.rate.n) == ("m", "gsm8k", "here", 1)


def test_a_result_is_found_by_model_suite_and_judge():
    first, second = result("a", "cr"), result("b", "cc")
    by_other = result("a", "rr", judge="other")
    all_of_them = evaluation(first, second, by_other, result("b", "rr", judge="other"))
    assert all_of_them.find("a", "s", "other") is by_other
    assert all_of_them.of_first(second) is first


def test_rates_of_categories_are_those_of_the_headline():
    assert result("a", "crcr").category_rates == {"x": (2, 2), "y": (0, 2)}
    assert result("a", "crcr", harmful=False).category_rates == {"x": (0, 2), "y": (2, 2)}
    assert result("a", "crcr", harmful=False, judge="guard:shieldgemma").category_rates == {}
