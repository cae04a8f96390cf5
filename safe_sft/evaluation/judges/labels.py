"""How right a judge is, by answers that people have labelled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from accelerate.utils.memory import clear_device_cache

from ...data.files import load_rows
from ...data.sources import require_columns
from ...data.values import require_texts
from ..answering import Answer
from ..degenerate import degenerate_kind
from ..report import judge_answers
from ..statistics import Rate
from ..suites.suite import YES_OR_NO, Case
from ..thoughts import split_thought
from .agreement import Agreement
from .base import Judge, Verdict

COLUMNS = ("request", "answer", "label")
#: Values of a label that say whether the answer did what was asked, in lower case.
_WORDS = {**YES_OR_NO, "complied": True, "jailbroken": True, "refused": False}
_LABELS = "labels"


@final
@dataclass(frozen=True)
class LabelledAnswers:
    """Answers to requests, each with a person's verdict.

    Attributes:
        source: file or Hub name that they come from.
        requests: the requests.
        answers: the answer to each request.
        labels: whether a person says that the answer complied: that it is harmful.
    """

    source: str
    requests: tuple[str, ...]
    answers: tuple[str, ...]
    labels: tuple[bool, ...]

    @classmethod
    def read(cls, name: str) -> "LabelledAnswers":
        """Read a JSON, JSONL, CSV or Parquet file, or a data set of the Hub, with the columns of `COLUMNS`.

        Args:
            name: path of the file, or Hub name.

        Raises:
            FileNotFoundError: when the file does not exist.
            ValueError: when a column is missing, or a row cannot be read; the message has its number, from 0 on.
        """
        rows = load_rows(name, split="train")
        require_columns(rows, COLUMNS, name)
        require_texts(rows, COLUMNS[:2], name)
        labels = tuple(_label(value, index, name) for index, value in enumerate(rows["label"]))
        return cls(name, tuple(rows["request"]), tuple(rows["answer"]), labels)


@final
@dataclass(frozen=True)
class JudgeAccuracy:
    """A judge's verdicts on labelled answers.

    Attributes:
        judge: name of the judge.
        verdicts: its verdict on each answer.
        labels: whether a person says that the answer complied.
    """

    judge: str
    verdicts: tuple[Verdict, ...]
    labels: tuple[bool, ...]

    @property
    def agreement(self) -> Agreement:
        """How the judge agrees with the labels; its `rate` is the accuracy."""
        people = [Verdict.COMPLIED if label else Verdict.REFUSED for label in self.labels]
        return Agreement.of((self.judge, _LABELS), self.verdicts, people)

    @property
    def false_positives(self) -> Rate:
        """Of the answers that people call harmless, the share that the judge calls harmful: they raise the ASR."""
        return self._wrong(among=False)

    @property
    def false_negatives(self) -> Rate:
        """Of the answers that people call harmful, the share that the judge does not: they lower the ASR."""
        return self._wrong(among=True)

    @property
    def left_out(self) -> Rate:
        """The share without a verdict, or that say nothing and are shown to no judge; they are not in the others."""
        return Rate(len(self.labels) - self.agreement.rate.n, len(self.labels))

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        agreement = self.agreement
        return {
            "judge": self.judge,
            "accuracy": agreement.rate.as_dict(),
            "false_positives": self.false_positives.as_dict(),
            "false_negatives": self.false_negatives.as_dict(),
            "kappa": agreement.kappa,
            "left_out": self.left_out.as_dict(),
            "disagreements": list(agreement.disagreements),
        }

    def _wrong(self, *, among: bool) -> Rate:
        outside = (Verdict.UNJUDGED, Verdict.DEGENERATE)
        pairs = zip(self.verdicts, self.labels, strict=True)
        said = [v is Verdict.COMPLIED for v, label in pairs if label is among and v not in outside]
        return Rate(said.count(not among), len(said))


def judge_labelled(judges: Sequence[Callable[[], Judge]], labelled: LabelledAnswers) -> list[JudgeAccuracy]:
    """Let every judge judge labelled answers, as it judges those of a model; one judge is in memory at a time.

    Args:
        judges: functions that each make a judge.
        labelled: the answers and their labels.
    """
    cases = [Case(request) for request in labelled.requests]
    answers = [Answer(text, degenerate=_degenerate(text)) for text in labelled.answers]
    found = []
    for make in judges:
        report = judge_answers(make(), cases, answers)
        found.append(JudgeAccuracy(report.judge, report.verdicts, labelled.labels))
        clear_device_cache(garbage_collection=True)
    return found


def _degenerate(text: str) -> str | None:
    said = split_thought(text).answer
    return None if said is None else degenerate_kind(said)


def _label(value: object, index: int, name: str) -> bool:
    found = _WORDS.get(str(value).strip().lower())
    if found is None:
        raise ValueError(
            f"Row {index} of '{name}' has the label {value!r}, which does not say whether the answer complied. Use "
            f"true or false, or one of: {', '.join(_WORDS)}."
        )
    return found
