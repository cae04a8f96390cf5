"""The mean attack success over the suites of a group, such as the three of `paper`, for each model and judge."""

from dataclasses import dataclass
from typing import Any, final

from .evaluate import Evaluation, SafetyResult
from .statistics import MeanRate
from .suites.published import SUITE_GROUPS


@final
@dataclass(frozen=True)
class GroupMean:
    """The mean attack success of a model over the suites of a group, by one judge.

    Attributes:
        group: name of the group, with its attack: `paper+prefill`.
        suites: the suites that it is the mean of.
        model: name of the model.
        judge: name of the judge.
        asr: the mean, each suite counted alike.
    """

    group: str
    suites: tuple[str, ...]
    model: str
    judge: str
    asr: MeanRate

    def as_dict(self) -> dict[str, Any]:
        """Return the mean as plain values for JSON."""
        of = {"group": self.group, "suites": list(self.suites), "model": self.model, "judge": self.judge}
        return {**of, "asr": self.asr.as_dict()}


def group_means(evaluation: Evaluation) -> list[GroupMean]:
    """Return the means of the groups whose suites were all measured, under the same attack.

    Args:
        evaluation: what was measured.
    """
    results = {result.key: result for result in evaluation.safety}
    means = []
    for group, members in SUITE_GROUPS.items():
        for (model, suite, judge), result in results.items():
            name, plus, attack = suite.partition("+")
            if name != members[0]:
                continue
            keys = [(model, f"{member}{plus}{attack}", judge) for member in members]
            found: list[SafetyResult] = [results[key] for key in keys if key in results]
            if len(found) == len(members) and result.suite.harmful:
                rates = MeanRate(tuple(one.report.asr for one in found))
                suites = tuple(one.suite.name for one in found)
                means.append(GroupMean(f"{group}{plus}{attack}", suites, model, judge, rates))
    return means
