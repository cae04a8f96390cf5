"""Code: does one of k programs pass its tests? (Chen et al. 2021, https://arxiv.org/abs/2107.03374)"""

from collections.abc import Sequence

import datasets
import evaluate

from safe_sft.evaluation.utility.code import run_tests
from safe_sft.evaluation.utility.scoring import pass_at_k


class CodePassAtK(evaluate.Metric):
    """pass@k, unbiased; programs run in a sandbox, and only with `allow_code_execution=True`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="https://arxiv.org/abs/2107.03374",
            inputs_description="predictions: for each problem a list of programs; references: its tests.",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self,
        predictions: list[list[str]],
        references: list[str],
        k: Sequence[int] = (1,),
        allow_code_execution: bool = False,
        workers: int = 2,
    ) -> dict[str, float]:
        pairs = [(program, tests) for group, tests in zip(predictions, references, strict=True) for program in group]
        results = iter(run_tests(pairs, allow_code_execution=allow_code_execution, workers=workers))
        passed = [[next(results) for _ in group] for group in predictions]
        return {f"pass@{n}": sum(pass_at_k(len(p), sum(p), n) for p in passed) / len(passed) for n in k}
