"""SST2: does an answer name the right sentiment? (Socher et al. 2013, https://aclanthology.org/D13-1170)"""

import datasets
import evaluate

from safe_sft.evaluation.utility.scoring import sentiment


class Sst2Accuracy(evaluate.Metric):
    """Share of answers whose first `positive` or `negative` is the label; an answer with neither is wrong."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="https://aclanthology.org/D13-1170",
            inputs_description="predictions: answers; references: 1 for positive, 0 for negative.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[int]) -> dict[str, float]:
        right = [sentiment(answer) == truth for answer, truth in zip(predictions, references, strict=True)]
        return {"accuracy": sum(right) / len(right)}
