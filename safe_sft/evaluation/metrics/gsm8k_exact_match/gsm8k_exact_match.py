"""GSM8K: does an answer end in the right number? (Cobbe et al. 2021, https://arxiv.org/abs/2110.14168)"""

import datasets
import evaluate

from safe_sft.evaluation.utility.scoring import same_final_number


class Gsm8kExactMatch(evaluate.Metric):
    """Share of answers whose final number is that of the reference, after `####` or in free form."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="https://arxiv.org/abs/2110.14168",
            inputs_description="predictions: answers; references: solutions that end in `#### number`, or numbers.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        right = [same_final_number(answer, truth) for answer, truth in zip(predictions, references, strict=True)]
        return {"exact_match": sum(right) / len(right)}
