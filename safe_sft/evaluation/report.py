"""A model's answers to a set of prompts, with the verdicts of a judge."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..data.safety_rows import Messages
from .answering import Answer, AnswerStore, answer_cases
from .judges import Judge, RefusalPhrases, Verdict
from .statistics import PairedOutcomes, Rate
from .suites.suite import Case


@dataclass(frozen=True)
class SafetyReport:
    """A model's answers, and the judge's verdict on each.

    Attributes:
        prompts: the requests.
        answers: the model's answers, in order.
        verdicts: the judge's verdict on each answer, in order.
        judge: name of the judge.
        categories: kind of each request, in order; empty where none are known.
        cut: whether each answer was cut at the longest length, in order; empty where it is not known.
    """

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    judge: str
    categories: tuple[str, ...] = ()
    cut: tuple[bool, ...] = ()

    @property
    def asr(self) -> Rate:
        """Attack success rate: the share of answers that comply, among those with a verdict."""
        return self._rate(Verdict.COMPLIED)

    @property
    def refusal(self) -> Rate:
        """The share of answers that refuse; on harmless prompts, the over-refusal rate."""
        return self._rate(Verdict.REFUSED)

    @property
    def degenerate(self) -> Rate:
        """The share of answers that say nothing: neither safe nor unsafe."""
        return self._rate(Verdict.DEGENERATE)

    @property
    def unjudged(self) -> Rate:
        """The share of all answers to which the judge gave no verdict."""
        return Rate(self.verdicts.count(Verdict.UNJUDGED), len(self.verdicts))

    @property
    def truncated(self) -> Rate:
        """The share of answers that were cut at the longest length; they keep their verdict."""
        return Rate(sum(self.cut), len(self.cut))

    def by_category(self) -> dict[str, "SafetyReport"]:
        """Return a report for each category, in order of first occurrence; empty where there is only one."""
        names = list(dict.fromkeys(self.categories))
        return {name: self._of_category(name) for name in names} if len(names) > 1 else {}

    def against(self, first: "SafetyReport", verdict: Verdict) -> PairedOutcomes:
        """Count on which of the same prompts another model and this one got `verdict`.

        Args:
            first: the other model's report, on the same prompts.
            verdict: `COMPLIED` for attack success, `REFUSED` for refusals.

        Returns:
            Counts over the prompts to which both answers have a verdict.
        """
        both = [pair for pair in zip(first.verdicts, self.verdicts, strict=True) if Verdict.UNJUDGED not in pair]
        return PairedOutcomes.of([a is verdict for a, _ in both], [b is verdict for _, b in both])

    def _rate(self, verdict: Verdict) -> Rate:
        counts = Counter(self.verdicts)
        return Rate(counts[verdict], len(self.verdicts) - counts[Verdict.UNJUDGED])

    def _of_category(self, name: str) -> "SafetyReport":
        kept = [i for i, category in enumerate(self.categories) if category == name]
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in kept),
            answers=tuple(self.answers[i] for i in kept),
            verdicts=tuple(self.verdicts[i] for i in kept),
            categories=tuple(self.categories[i] for i in kept),
            cut=tuple(self.cut[i] for i in kept if self.cut),
        )


def measure_asr(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Messages],
    *,
    judge: Judge | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    description: str = "Measuring attack success",
    store: AnswerStore | None = None,
) -> SafetyReport:
    """Answer `prompts` greedily, each rank its share, and judge the answers.

    Args:
        model: the model, on its device.
        tokenizer: the model's tokenizer; its chat template, if any, wraps prompts that are texts.
        prompts: requests as texts or chat messages.
        judge: judge of the answers; refusal phrases by default.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts answered at a time, per device.
        description: text of the progress bar.
        store: store of answers on disk, so that a killed run goes on; None keeps none.

    Raises:
        ValueError: when there are no prompts.
    """
    if not prompts:
        raise ValueError("There are no prompts to measure attack success with. Pass at least one.")
    cases = [Case.of(prompt) for prompt in prompts]
    answers = answer_cases(
        model,
        tokenizer,
        cases,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        description=description,
        store=store,
    )
    return judge_answers(judge or RefusalPhrases(), cases, answers)


def judge_answers(judge: Judge, cases: Sequence[Case], answers: Sequence[Answer]) -> SafetyReport:
    """Judge answers, each rank its share; degenerate ones are not shown to the judge.

    Args:
        judge: the judge that gives the verdicts.
        cases: the requests.
        answers: the answer to each request.
    """
    state = PartialState()
    judged = [i for i, answer in enumerate(answers) if not answer.degenerate]
    mine = judged[state.process_index :: state.num_processes]
    found = judge.judge([cases[i].prompt for i in mine], [answers[i].text for i in mine])
    pairs = list(zip(mine, found, strict=True))
    verdicts = dict(gather_object(pairs) if state.num_processes > 1 else pairs)
    return SafetyReport(
        prompts=tuple(case.prompt for case in cases),
        answers=tuple(answer.text for answer in answers),
        verdicts=tuple(verdicts.get(i, Verdict.DEGENERATE) for i in range(len(answers))),
        judge=judge.name,
        categories=tuple(case.category for case in cases),
        cut=tuple(answer.truncated for answer in answers),
    )
