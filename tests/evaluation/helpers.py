"""Evaluations from verdicts, without a model."""

from safe_sft.evaluation import Case, SafetyReport, Suite, Verdict
from safe_sft.evaluation.evaluate import Evaluation, ModelSpec, SafetyResult
from safe_sft.evaluation.utility.scored_tasks import UtilityResult

LETTERS = {
    "c": Verdict.COMPLIED,
    "r": Verdict.REFUSED,
    "d": Verdict.DEGENERATE,
    "u": Verdict.UNJUDGED,
    "s": Verdict.SAFE,
}


def result(model: str, letters: str, *, harmful: bool = True, judge: str = "refusal_phrases", suite: str = "s"):
    """A result whose verdicts are spelled in letters; categories alternate."""
    n = len(letters)
    categories = tuple("xy"[i % 2] for i in range(n))
    cases = tuple(Case(f"request {i}", category, harmful) for i, category in enumerate(categories))
    report = SafetyReport(
        tuple(case.prompt for case in cases),
        tuple(f"answer {i} of {model}" for i in range(n)),
        tuple(LETTERS[letter] for letter in letters),
        judge,
        categories,
        (False,) * n,
    )
    return SafetyResult(model, Suite(suite, cases, "a source", "a revision"), report, judge != "guard:shieldgemma")


def task(model: str, right: str):
    """A task's result, spelled in + and -."""
    return UtilityResult(model, "gsm8k", "a source", ("7",) * len(right), tuple(letter == "+" for letter in right))


def evaluation(*safety: SafetyResult, utility=(), unavailable=()) -> Evaluation:
    """Of the models that occur, in order."""
    names = dict.fromkeys(result.model for result in [*safety, *utility])
    return Evaluation(tuple(ModelSpec(name, f"path/{name}") for name in names), safety, tuple(utility), unavailable)
